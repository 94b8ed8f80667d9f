"""The gradient of a window: where precision and task meet."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from microstep.types import Batch, Metrics, Precision, Task


def accumulate_gradient(
    model: nn.Module, window: Iterable[Batch], weight: float, precision: Precision, task: Task, metrics: Metrics | None
) -> Tensor:
    """Add the gradient of the window's weighted mean loss to the parameters; return that loss, detached.

    Each batch contributes `loss_sum / weight`, where `weight` is the whole window's: however the window is cut, the
    contributions add up to the mean over all its samples. One batch is held at a time.
    """
    total = torch.zeros(())
    for batch in map(precision.cast, window):
        with precision.forward():
            outputs = model(batch.inputs)
        loss_sum = task.loss_sum(outputs, batch.targets)
        loss = loss_sum / weight
        precision.backward(loss)
        total = loss.detach() + total
        if metrics is not None:
            metrics.update(outputs.detach(), batch.targets, loss_sum)
    return total
