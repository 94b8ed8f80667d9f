"""Sharpness-aware minimization (Foret et al., ICLR 2021)."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from microstep.components.step.standard import accumulate_gradient
from microstep.types.data import Batch, StepResult
from microstep.types.protocols import Metrics, Precision, Task, Transform
from microstep.utils.time_ranges import time_range


class SAMStep:
    """Updates the weights with the gradient at perturbed weights: w + rho · g / ‖g‖, g being the gradient at w.

    Each step makes two passes over the window, both exact under accumulation. The scale of the gradient cancels in the
    perturbation. If the first gradient is not finite, neither is the second, and the step is skipped.

    Args:
        precision, task, metrics, max_grad_norm, transform: as for `StandardStep`. Metrics are updated in the first
            pass only, and the gradient at the perturbed weights is transformed.
        rho: size of the perturbation, as an L2 norm over all weights.
    """

    passes = 2  #: over each window

    def __init__(
        self,
        precision: Precision,
        task: Task,
        metrics: Metrics,
        max_grad_norm: float | None,
        rho: float = 0.05,
        transform: Transform | None = None,
    ) -> None:
        self.precision, self.task, self.metrics = precision, task, metrics
        self.max_grad_norm, self.rho, self.transform = max_grad_norm, rho, transform

    def __call__(self, model: nn.Module, optimizer: Optimizer, window: Iterable[Batch], weight: float) -> StepResult:
        optimizer.zero_grad()
        loss = accumulate_gradient(model, window, weight, self.precision, self.task, self.metrics)
        with perturbed_weights(optimizer, self.rho), frozen_running_statistics(model):
            optimizer.zero_grad()
            accumulate_gradient(model, window, weight, self.precision, self.task, None)
        with time_range("update"):
            update = self.precision.update(optimizer, self.max_grad_norm, self.transform)
        return StepResult(loss, update.updated, update.grad_norm)


@contextmanager
def perturbed_weights(optimizer: Optimizer, rho: float) -> Iterator[None]:
    """Move the weights by `rho` along their gradient. Restore them bit for bit at the end."""
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    before = [p.detach().clone() for p in parameters]
    try:
        ascend_gradient(parameters, rho)
        yield
    finally:
        with torch.no_grad():
            for parameter, weights in zip(parameters, before, strict=True):
                parameter.copy_(weights)


@torch.no_grad()
def ascend_gradient(parameters: list[nn.Parameter], rho: float) -> None:
    """Add rho · g / ‖g‖ to the weights, or nothing if the gradient is zero."""
    gradients: list[Tensor] = [p.grad for p in parameters if p.grad is not None]
    norm = get_total_norm(gradients)
    factor = rho / norm.clamp(min=torch.finfo(norm.dtype).tiny)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.add_(gradient * factor)


@contextmanager
def frozen_running_statistics(model: nn.Module) -> Iterator[None]:
    """Keep BatchNorm from updating its running statistics. It still normalizes by the batch."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
