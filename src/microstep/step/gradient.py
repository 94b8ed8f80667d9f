"""The gradient of a window: where precision and task meet."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from microstep.types.data import Batch
from microstep.types.protocols import Metrics, Precision, Task


def accumulate_gradient(
    model: nn.Module, window: Iterable[Batch], weight: float, precision: Precision, task: Task, metrics: Metrics | None
) -> Tensor:
    """Add the gradient of the window's weighted mean loss to the parameters; return that loss, detached.

    Each batch contributes `loss_sum / weight`, where `weight` is the whole window's: however the window is cut, the
    contributions add up to the mean over all its samples. One batch is held at a time.
    """
    total = torch.zeros(())
    for batch in window:
        total = add_gradient(model, precision.cast(batch), weight, precision, task, metrics) + total
        del batch  # or it would live on while the next is fetched
    return total


def add_gradient(
    model: nn.Module, batch: Batch, weight: float, precision: Precision, task: Task, metrics: Metrics | None
) -> Tensor:
    """Add one batch's contribution; return its share of the loss."""
    with precision.forward():
        outputs = model(batch.inputs)
    loss_sum = task.loss_sum(outputs, batch.targets, *batch.mixed)
    loss = loss_sum / weight
    precision.backward(loss)
    if metrics is not None:
        metrics.update(outputs.detach(), batch.targets, loss_sum, *batch.mixed)
    return loss.detach()
