"""Learning rate schedules, counted in optimizer steps."""

import pytest
import torch
from torch import nn

from microstep.components.scheduler import constant, cosine, onecycle


def optimizer_at(lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)


def rates_of(optimizer: torch.optim.Optimizer, schedule, steps: int) -> list[float]:
    """Return the learning rate of each step, and that after the last."""
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return [*rates, optimizer.param_groups[0]["lr"]]


def test_cosine_warms_up_and_ends_at_its_share() -> None:
    """The learning rate rises in the fraction `warmup` of the steps, then follows a cosine to `final`."""
    optimizer = optimizer_at(2.0)
    rates = rates_of(optimizer, cosine(optimizer, total_steps=100, warmup=0.1, final=0.25), 100)
    assert rates[:10] == sorted(rates[:10])
    assert max(rates) == rates[10] == 2.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.5)


@pytest.mark.parametrize("percent", range(100))
def test_cosine_warms_up_over_the_share_as_typed(percent: int) -> None:
    """`warmup=0.29` of 100 steps is 29, although 0.29 · 100 is less than 29 as floats."""
    optimizer = optimizer_at(1.0)
    rates = rates_of(optimizer, cosine(optimizer, total_steps=100, warmup=percent / 100), 100)
    assert rates.index(1.0) == percent


def test_constant_leaves_the_rate_alone() -> None:
    """Every step has the optimizer's learning rate."""
    optimizer = optimizer_at(0.3)
    assert set(rates_of(optimizer, constant(optimizer), 20)) == {0.3}


def test_onecycle_peaks_at_the_optimizers_rate() -> None:
    """The optimizer's learning rate is the peak, reached after `pct_start` of the steps."""
    optimizer = optimizer_at(1.0)
    rates = rates_of(optimizer, onecycle(optimizer, total_steps=50, pct_start=0.4), 50)
    assert max(rates) == pytest.approx(1.0)
    assert rates.index(max(rates)) == 19
    assert rates[-2] < 1e-3
