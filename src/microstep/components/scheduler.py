"""Learning rate schedules, counted in optimizer steps."""

from fractions import Fraction
from math import cos, pi

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

__all__ = ["constant", "cosine", "onecycle"]


def constant(optimizer: Optimizer) -> LRScheduler:
    """Return a schedule that leaves the learning rate alone."""
    return LambdaLR(optimizer, lambda step: 1.0)


def cosine(optimizer: Optimizer, total_steps: int, warmup: float = 0.1, final: float = 0.0) -> LRScheduler:
    """Return a linear warm-up over a share of the steps, then half a cosine (Loshchilov and Hutter, ICLR 2017).

    Args:
        warmup: the share of all steps in which the rate rises from 0 to its peak.
        final: the share of the peak that the last step would end at.
    """
    rising = int(Fraction(str(warmup)) * total_steps)  # exactly: in binary 0.29 · 100 is less than 29

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / (rising + 1)
        done = (step - rising) / max(1, total_steps - rising)
        return final + (1 - final) * 0.5 * (1 + cos(pi * min(1.0, done)))

    return LambdaLR(optimizer, factor)


def onecycle(optimizer: Optimizer, total_steps: int, pct_start: float = 0.3) -> LRScheduler:
    """Return torch's one-cycle schedule (Smith and Topin, 2018); the optimizer's rate is its peak."""
    return OneCycleLR(optimizer, max_lr=optimizer.param_groups[0]["lr"], total_steps=total_steps, pct_start=pct_start)
