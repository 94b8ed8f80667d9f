"""The standard step: accumulates the gradient of a window, then updates the parameters once."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from microstep.types.data import Batch, StepResult
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


class StandardStep:
    """Make the gradient of a window's mean loss, apply it.

    Args:
        precision, task: how the gradient is made, and of what.
        metrics: fed with every batch's outputs.
        max_grad_norm: the norm to clip to, or None.
    """

    def __init__(self, precision: Precision, task: Task, metrics: Metrics, max_grad_norm: float | None) -> None:
        self.precision, self.task, self.metrics, self.max_grad_norm = precision, task, metrics, max_grad_norm

    def __call__(self, model: nn.Module, optimizer: Optimizer, window: Iterable[Batch], weight: float) -> StepResult:
        """Take one step over the window, whose samples' weights sum to `weight`."""
        optimizer.zero_grad()
        loss = accumulate_gradient(model, window, weight, self.precision, self.task, self.metrics)
        update = self.precision.update(optimizer, self.max_grad_norm)
        return StepResult(loss, update.updated, update.grad_norm)
