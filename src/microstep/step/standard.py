"""The usual optimizer step."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.optim import Optimizer

from microstep.step.gradient import accumulate_gradient
from microstep.types.data import Batch, StepResult
from microstep.types.protocols import Metrics, Precision, Task


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
