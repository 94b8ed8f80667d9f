"""Sharpness-aware minimisation (Foret et al., ICLR 2021)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from microstep.components.step.standard import accumulate_gradient
from microstep.types.data import Batch, StepResult
from microstep.types.protocols import Metrics, Precision, Task


class SAMStep:
    """Apply the gradient found at the window's worst point within `rho` of the weights, to the weights.

    Two passes over the window, each exact under accumulation. A gradient scale cancels in the ascent's direction; where
    the first gradient is not finite the second isn't either, and the step is skipped like any other.

    Args:
        precision, task, metrics, max_grad_norm: as in the standard step; metrics see the first pass alone.
        rho: the radius, in the weights' own norm.
    """

    def __init__(
        self, precision: Precision, task: Task, metrics: Metrics, max_grad_norm: float | None, rho: float = 0.05
    ) -> None:
        self.precision, self.task, self.metrics, self.max_grad_norm = precision, task, metrics, max_grad_norm
        self.rho = rho

    def __call__(self, model: nn.Module, optimizer: Optimizer, window: Iterable[Batch], weight: float) -> StepResult:
        """Take one step over the window, whose samples' weights sum to `weight`."""
        optimizer.zero_grad()
        loss = accumulate_gradient(model, window, weight, self.precision, self.task, self.metrics)
        with perturbed_weights(optimizer, self.rho), frozen_running_statistics(model):
            optimizer.zero_grad()
            accumulate_gradient(model, window, weight, self.precision, self.task, None)
        update = self.precision.update(optimizer, self.max_grad_norm)
        return StepResult(loss, update.updated, update.grad_norm)


@contextmanager
def perturbed_weights(optimizer: Optimizer, rho: float) -> Iterator[None]:
    """Move the weights by `rho` along their gradient; put them back afterwards, bit for bit."""
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    before = [p.detach().clone() for p in parameters]
    ascend_gradient(parameters, rho)
    try:
        yield
    finally:
        restore_weights(parameters, before)


@torch.no_grad()
def restore_weights(parameters: list[nn.Parameter], values: list[Tensor]) -> None:
    """Put the weights back."""
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)


@torch.no_grad()
def ascend_gradient(parameters: list[nn.Parameter], rho: float) -> None:
    """Add rho · g / ‖g‖ to the weights; nothing where the gradient is zero."""
    gradients: list[Tensor] = [p.grad for p in parameters if p.grad is not None]
    norm = get_total_norm(gradients)
    factor = rho / norm.clamp(min=torch.finfo(norm.dtype).tiny)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.add_(gradient * factor)


@contextmanager
def frozen_running_statistics(model: nn.Module) -> Iterator[None]:
    """Let BatchNorm normalise by the batch as ever, but leave its running statistics alone."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
