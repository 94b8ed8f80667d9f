"""Strategy of a run in one process, and the strategy in use."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from microstep.types.data import MicroBatchResult
from microstep.types.protocols import Metrics, Strategy


class Single:
    """Computes all micro-batches in this process."""

    rank, world_size = 0, 1

    def share(self, micro_batches: int) -> range:
        return range(micro_batches)

    def reduce(self, model: nn.Module, results: Iterable[MicroBatchResult], metrics: Metrics | None) -> Tensor:
        total = torch.zeros(())
        for result in results:
            if metrics is not None:
                metrics.update(*result.metrics_arguments)
            total = result.loss + total
        return total

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def broadcast(self, value: Any) -> Any:
        return value


IN_USE: list[Strategy] = [Single()]  #: the last one is in use


def get_strategy() -> Strategy:
    """Return the strategy that `accumulate_gradient` uses. Steps need not know of it."""
    return IN_USE[-1]


@contextmanager
def use_strategy(strategy: Strategy) -> Iterator[None]:
    IN_USE.append(strategy)
    try:
        yield
    finally:
        IN_USE.pop()
