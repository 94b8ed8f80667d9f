"""Learning rate schedules, updated after every optimizer step."""

from fractions import Fraction
from math import cos, pi

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

__all__ = ["constant", "cosine", "onecycle"]


def constant(optimizer: Optimizer) -> LRScheduler:
    """Return a schedule that keeps the optimizer's learning rate."""
    return LambdaLR(optimizer, lambda step: 1.0)


def cosine(optimizer: Optimizer, total_steps: int, warmup: float = 0.1, final: float = 0.0) -> LRScheduler:
    """Return a linear warm-up followed by cosine annealing (Loshchilov and Hutter, ICLR 2017).

    Args:
        warmup: fraction of all steps in which the learning rate rises from 0 to its peak.
        final: learning rate at the end, as a fraction of the peak.
    """
    warmup_steps = int(Fraction(str(warmup)) * total_steps)  # exact: as floats, 0.29 · 100 is less than 29

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
        return final + (1 - final) * 0.5 * (1 + cos(pi * min(1.0, progress)))

    return LambdaLR(optimizer, factor)


def onecycle(optimizer: Optimizer, total_steps: int, pct_start: float = 0.3) -> LRScheduler:
    """Return torch's one-cycle schedule (Smith and Topin, 2018). The optimizer's learning rate is its peak.

    Args:
        pct_start: fraction of all steps in which the learning rate rises.
    """
    return OneCycleLR(optimizer, max_lr=optimizer.param_groups[0]["lr"], total_steps=total_steps, pct_start=pct_start)
