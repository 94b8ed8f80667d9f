"""The wrong rules that tutorials and frameworks use, kept so that the tests can be seen to catch them.

Each replaces `accumulate_gradient`; `nominal` is the number of micro-batches of a full window.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Rule = Callable[..., Tensor]


def mean_over_accum(nominal: int) -> Rule:
    """Divide each micro-batch mean by `accum`, as most loops do, among them those of Lightning and Accelerate."""
    return rule(lambda batches, weigh: [1 / (weigh(batch) * nominal) for batch in batches])


def mean_of_means(nominal: int) -> Rule:
    """Average the micro-batch means: a short micro-batch counts as much as a full one."""
    return rule(lambda batches, weigh: [1 / (weigh(batch) * len(batches)) for batch in batches])


def dropped_tail(nominal: int) -> Rule:
    """Leave out micro-batches shorter than the first, as `drop_last` does."""

    def factors(batches, weigh):
        full = [len(batch.indices) == len(batches[0].indices) for batch in batches]
        kept = sum(weigh(batch) for batch, keep in zip(batches, full, strict=True) if keep)
        return [keep / kept for keep in full]

    return rule(factors)


def sum_of_means(nominal: int) -> Rule:
    """Sum the micro-batch means."""
    return rule(lambda batches, weigh: [1 / weigh(batch) for batch in batches])


RULES = (mean_over_accum, mean_of_means, dropped_tail, sum_of_means)


def rule(factors) -> Rule:
    """Return an `accumulate_gradient` that weighs each micro-batch's summed loss by these factors."""

    def accumulate(model, window, weight, precision, task, metrics) -> Tensor:
        batches = [precision.cast(batch) for batch in window]

        def weigh(batch) -> float:
            return task.weight(batch.targets).sum().item()

        total = torch.zeros(())
        for batch, factor in zip(batches, factors(batches, weigh), strict=True):
            outputs = model(batch.inputs)
            loss = task.loss_sum(outputs, batch.targets) * factor
            precision.backward(loss)
            total = total + loss.detach()
            if metrics is not None:
                metrics.update(outputs.detach(), batch.targets, loss)
        return total

    return accumulate
