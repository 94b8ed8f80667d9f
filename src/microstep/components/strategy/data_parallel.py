"""Strategy of a run in several processes that hold the same model."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from microstep.components.strategy.connection import Connection
from microstep.components.strategy.gradient_sums import AllReduce, TreeSum
from microstep.components.strategy.running_statistics import RunningStatistics
from microstep.errors import OutOfMemory, format_error
from microstep.types.data import MicroBatchResult, Mix
from microstep.types.protocols import Metrics
from microstep.utils.tensors import is_out_of_memory
from microstep.utils.time_ranges import time_range


class DataParallel:
    """Distributes consecutive micro-batches of a window over the ranks, and sums their gradients.

    Losses, metrics and running statistics are updated with all micro-batches in the order of the window. Only the
    rounding of the gradient's sum may depend on the number of ranks. Without a connection there is one rank.

    Args:
        processes: number of processes that windows are planned for.
        run_on: number of processes to start.
    """

    sum_type: type[AllReduce | TreeSum] = AllReduce  #: how gradients are added

    def __init__(
        self, connection: Connection | None = None, processes: int | None = None, run_on: int | None = None
    ) -> None:
        self.connection = connection
        self.rank = connection.rank if connection else 0
        self.world_size = connection.world_size if connection else 1

    def share(self, micro_batches: int) -> range:
        """Return a range of micro-batches. The ranges of two ranks differ by at most one in length."""
        first, last = (-(-micro_batches * rank // self.world_size) for rank in (self.rank, self.rank + 1))
        return range(first, last)

    def reduce(self, model: nn.Module, results: Iterable[MicroBatchResult], metrics: Metrics | None) -> Tensor:
        statistics, computed, failure = RunningStatistics(model), list[tuple[Any, ...]](), ""
        gradients = self.sum_type([p for p in model.parameters() if p.requires_grad])
        try:
            for result in results:
                statistics.record()
                gradients.add(result.number)
                computed.append(pack(result, metrics is not None))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            failure, computed = format_error(error), []
        with time_range("reduce"):
            ranks = self.gather((computed, statistics.changes, gradients.describe(), failure))
        for rank, (*_, failure) in enumerate(ranks):
            if failure:
                raise OutOfMemory(f"rank {rank}", failure, "choose a smaller batch_size, or accumulation=auto")
        statistics.apply([change for _, changes, *_ in ranks for change in changes])
        total = add_up([one for computed, *_ in ranks for one in computed], metrics)
        with time_range("reduce"):
            gradients.finish([described for *_, described, _ in ranks], total, self.connection)
        return total

    def gather(self, value: Any) -> list[Any]:
        return [value] if self.connection is None else self.connection.gather(value)

    def broadcast(self, value: Any) -> Any:
        return value if self.connection is None else self.connection.broadcast(value)


def pack(result: MicroBatchResult, is_measured: bool) -> tuple[Any, ...]:
    """Return what the other ranks need of a result, as tensors and tuples."""
    if not is_measured:
        return (result.loss,)
    mix = None if result.mix is None else (result.mix.targets, result.mix.share)
    return result.loss, result.outputs, result.targets, result.loss_sum, mix


def add_up(packed: Sequence[tuple[Any, ...]], metrics: Metrics | None) -> Tensor:
    """Return the sum of the losses of a window's micro-batches, and update metrics with them."""
    total = torch.zeros(())
    for loss, *measured in packed:
        total = loss + total
        if metrics is not None:
            outputs, targets, loss_sum, mix = measured
            metrics.update(outputs, targets, loss_sum.requires_grad_(), *(() if mix is None else (Mix(*mix),)))
    return total
