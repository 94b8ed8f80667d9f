"""Standard step: accumulates the gradient of a window, then updates the parameters once."""

from collections.abc import Iterable
from functools import partial

from torch import Tensor, nn
from torch.optim import Optimizer

from microstep.components.strategy import get_strategy
from microstep.types.data import Batch, MicroBatchResult, StepResult
from microstep.types.protocols import Metrics, Precision, Task, Transform
from microstep.utils.time_ranges import time_range


def accumulate_gradient(
    model: nn.Module, window: Iterable[Batch], weight: float, precision: Precision, task: Task, metrics: Metrics | None
) -> Tensor:
    """Add the gradient of the window's weighted mean loss to the parameters, and return that loss (0-d, detached).

    Each micro-batch contributes `loss_sum / weight`. As `weight` is that of the window, the sum does not depend on the
    split into micro-batches. One micro-batch is in memory at a time. If the window is distributed over processes, all
    of them must call this function, and get the sum of all their gradients.
    """
    compute = partial(add_gradient, model, weight=weight, precision=precision, task=task)
    results = map(compute, map(precision.cast, window))  # map keeps no reference to a batch
    return get_strategy().reduce(model, results, metrics)


def add_gradient(model: nn.Module, batch: Batch, weight: float, precision: Precision, task: Task) -> MicroBatchResult:
    """Add the gradient of one micro-batch's `loss_sum / weight`."""
    with time_range("forward"):
        with precision.forward():
            outputs = model(batch.inputs)
        loss_sum = task.loss_sum(outputs, batch.targets, *batch.mix_arguments)
        loss = loss_sum / weight
    with time_range("backward"):
        precision.backward(loss)
    total = loss_sum.detach().requires_grad_()
    return MicroBatchResult(loss.detach(), outputs.detach(), batch.targets, total, batch.mix, batch.number)


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
        with time_range("update"):
            update = self.precision.update(optimizer, self.max_grad_norm, self.transform)
        return StepResult(loss, update.updated, update.grad_norm)
