"""Standard step: accumulates the gradient of a window, then updates the parameters once."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from microstep.types.data import Batch, StepResult
from microstep.types.protocols import Metrics, Precision, Task, Transform


def accumulate_gradient(
    model: nn.Module, window: Iterable[Batch], weight: float, precision: Precision, task: Task, metrics: Metrics | None
) -> Tensor:
    """Add the gradient of the window's weighted mean loss to the parameters.

    Each micro-batch contributes `loss_sum / weight`. As `weight` is that of the window, the sum does not depend on the
    split into micro-batches. One micro-batch is in memory at a time. Return that loss, detached (0-d).
    """
    total = torch.zeros(())
    for batch in window:
        total = add_gradient(model, precision.cast(batch), weight, precision, task, metrics) + total
        del batch  # frees its memory before the next is fetched
    return total


def add_gradient(
    model: nn.Module, batch: Batch, weight: float, precision: Precision, task: Task, metrics: Metrics | None
) -> Tensor:
    """Add the gradient of one micro-batch's `loss_sum / weight`. Return that loss, detached."""
    with precision.forward():
        outputs = model(batch.inputs)
    loss_sum = task.loss_sum(outputs, batch.targets, *batch.mix_arguments)
    loss = loss_sum / weight
    precision.backward(loss)
    if metrics is not None:
        metrics.update(outputs.detach(), batch.targets, loss_sum, *batch.mix_arguments)
    return loss.detach()


class StandardStep:
    """Updates the parameters with the gradient of the window's weighted mean loss.

    Args:
        precision: computes, scales and applies the gradient.
        task: provides the loss.
        metrics: updated with the outputs of each micro-batch.
        max_grad_norm: norm that the gradient is clipped to; None does not clip.
        transform: applied to the gradient before it is clipped.
    """

    def __init__(
        self,
        precision: Precision,
        task: Task,
        metrics: Metrics,
        max_grad_norm: float | None,
        transform: Transform | None = None,
    ) -> None:
        self.precision, self.task, self.metrics = precision, task, metrics
        self.max_grad_norm, self.transform = max_grad_norm, transform

    def __call__(self, model: nn.Module, optimizer: Optimizer, window: Iterable[Batch], weight: float) -> StepResult:
        optimizer.zero_grad()
        loss = accumulate_gradient(model, window, weight, self.precision, self.task, self.metrics)
        update = self.precision.update(optimizer, self.max_grad_norm, self.transform)
        return StepResult(loss, update.updated, update.grad_norm)
