"""Learning rate schedules, updated after every optimizer step. They scale the rate of every parameter group."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from math import cos, pi
from typing import Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

__all__ = ["Plateau", "constant", "cosine", "head_first", "linear", "multistep", "onecycle", "warm_restarts"]


def constant(optimizer: Optimizer) -> LRScheduler:
    """Return a schedule that keeps the optimizer's learning rate."""
    return LambdaLR(optimizer, lambda step: 1.0)


def cosine(optimizer: Optimizer, total_steps: int, warmup: float = 0.1, final: float = 0.0) -> LRScheduler:
    """Return a linear warm-up followed by cosine annealing (Loshchilov and Hutter, ICLR 2017).

    Args:
        warmup: fraction of all steps in which the learning rate rises from 0 to its peak.
        final: learning rate at the end, as a fraction of the peak.
    """
    return LambdaLR(optimizer, anneal(total_steps, warmup, final))


def linear(optimizer: Optimizer, total_steps: int, warmup: float = 0.1, final: float = 0.0) -> LRScheduler:
    """Return a linear warm-up followed by linear decay (Devlin et al., 2019). Its arguments are those of `cosine`."""
    return LambdaLR(optimizer, anneal(total_steps, warmup, final, lambda progress: 1 - progress))


def head_first(
    optimizer: Optimizer, total_steps: int, steps_per_epoch: int, head_epochs: float = 2, warmup: float = 0.1
) -> LRScheduler:
    """Return `cosine` for the groups of `param_groups`, such as a new head, and from `head_epochs` on for the rest.

    Until then the other parameters have a learning rate of 0. Raise ValueError if there are no groups.
    """
    groups = optimizer.param_groups
    if not any(group.get("match") for group in groups):
        raise ValueError("param_groups names no head to train first: type param_groups=[{match:fc,lr:0.001}]")
    held = count_steps(head_epochs, steps_per_epoch)
    head, rest = (anneal(steps, warmup) for steps in (total_steps, max(0, total_steps - held)))
    return LambdaLR(optimizer, [head if group.get("match") else lambda step: rest(step - held) for group in groups])


Curve = Callable[[float], float]  #: falls from 1 to 0 over 0…1


def anneal(
    total_steps: int, warmup: float, final: float = 0.0, curve: Curve = lambda progress: 0.5 * (1 + cos(pi * progress))
) -> Callable[[int], float]:
    """Return the factor of the learning rate by step: 0 before step 0, a linear warm-up, then a curve."""
    warmup_steps = count_steps(warmup, total_steps)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return max(0, step + 1) / (warmup_steps + 1)
        progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
        return final + (1 - final) * curve(min(1.0, progress))

    return factor


def count_steps(number: float, steps: int) -> int:
    return int(Fraction(str(number)) * steps)  # exact: as floats, 0.29 · 100 is less than 29


def onecycle(optimizer: Optimizer, total_steps: int, pct_start: float = 0.3) -> LRScheduler:
    """Return torch's one-cycle schedule (Smith and Topin, 2018). The learning rate of each group is its peak.

    Args:
        pct_start: fraction of all steps in which the learning rate rises.
    """
    peaks = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(optimizer, max_lr=peaks, total_steps=total_steps, pct_start=pct_start)


def multistep(
    optimizer: Optimizer, steps_per_epoch: int, milestones: Sequence[float], gamma: float, warmup_epochs: float = 0
) -> LRScheduler:
    """Return steps down (He et al., CVPR 2016), after any linear warm-up (Goyal et al., 2017).

    Args:
        milestones: epochs after which the learning rate is multiplied by `gamma`.
    """
    *steps, warmup = [count_steps(epochs, steps_per_epoch) for epochs in (*milestones, warmup_epochs)]
    return LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / (warmup + 1)) * gamma ** sum(step >= s for s in steps)
    )


def warm_restarts(optimizer: Optimizer, steps_per_epoch: int, cycle_epochs: float, cycle_mult: int = 1) -> LRScheduler:
    """Return torch's cosine annealing with warm restarts (SGDR: Loshchilov and Hutter, ICLR 2017).

    The first cycle has `cycle_epochs`, and each is `cycle_mult` times as long as the one before.
    """
    return CosineAnnealingWarmRestarts(optimizer, max(1, count_steps(cycle_epochs, steps_per_epoch)), cycle_mult)


class Plateau(ReduceLROnPlateau):
    """Lowers the learning rate when the monitored metric stops improving, as torch's schedule does.

    Args:
        direction: max or min, of the monitored metric.
        factor: what the learning rate is multiplied by.
        patience: validations in a row without an improvement that are tolerated.
        threshold: an improvement exceeds the best value by more than this share of it.
        min_lr: lowest learning rate.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        direction: Literal["min", "max"],
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(optimizer, direction, factor, patience, threshold, min_lr=min_lr)

    def step(self, metrics: object = None, epoch: int | None = None) -> None:  # type: ignore[override]
        """Keep the learning rate after an optimizer step."""

    def after_validation(self, value: float) -> None:
        super().step(value if self.mode == "max" else -value)
