"""Learning rate schedules, counted in optimizer steps."""

import inspect

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from microstep.components.scheduler import (
    Plateau,
    constant,
    cosine,
    head_first,
    linear,
    multistep,
    onecycle,
    warm_restarts,
)


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


def test_linear_warms_up_and_falls_in_a_line_to_its_share() -> None:
    """After the warm-up, each step lowers the learning rate by the same amount, to `final` at the end."""
    optimizer = optimizer_at(2.0)
    rates = rates_of(optimizer, linear(optimizer, total_steps=100, warmup=0.1, final=0.25), 100)
    assert rates[:10] == pytest.approx([2.0 * (step + 1) / 11 for step in range(10)])
    assert rates[10:] == pytest.approx([2.0 - 1.5 * step / 90 for step in range(91)])


def test_multistep_falls_after_the_epochs_of_its_milestones() -> None:
    """The rates are those of torch's MultiStepLR stepped by epoch; a milestone may be part of an epoch."""
    optimizer, other = optimizer_at(1.0), optimizer_at(1.0)
    rates = rates_of(optimizer, multistep(optimizer, steps_per_epoch=10, milestones=[5, 2], gamma=0.5), 70)
    expected = rates_of(other, torch.optim.lr_scheduler.MultiStepLR(other, [2, 5], gamma=0.5), 7)
    assert rates[::10] == expected
    assert rates[20:50] == [0.5] * 30
    optimizer = optimizer_at(1.0)
    assert rates_of(optimizer, multistep(optimizer, 10, [2.9], 0.5), 30).index(0.5) == 29


def test_multistep_warms_up_in_epochs() -> None:
    """The learning rate rises over `warmup_epochs`, and the milestones count from the start."""
    optimizer = optimizer_at(1.0)
    rates = rates_of(optimizer, multistep(optimizer, 10, [3], 0.1, warmup_epochs=1.5), 40)
    assert rates[:15] == pytest.approx([(step + 1) / 16 for step in range(15)])
    assert rates[15:30] == [1.0] * 15
    assert rates[30] == pytest.approx(0.1)


@pytest.mark.parametrize("multiple", [1, 2])
def test_warm_restarts_are_those_of_torch(multiple: int) -> None:
    """Each cycle starts at the optimizer's rate and falls along a cosine; it is `cycle_mult` times as long."""
    optimizer, other = optimizer_at(1.0), optimizer_at(1.0)
    torchs = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(other, 20, multiple)
    rates = rates_of(optimizer, warm_restarts(optimizer, 10, 2, multiple), 150)
    assert rates == pytest.approx(rates_of(other, torchs, 150))
    assert rates.count(1.0) == {1: 8, 2: 4}[multiple]


def test_cycles_of_a_fraction_of_an_epoch_are_whole_steps() -> None:
    """A cycle of 0.29 epochs of 100 steps has 29 steps, and none has less than one."""
    optimizer, other = optimizer_at(1.0), optimizer_at(1.0)
    rates = rates_of(optimizer, warm_restarts(optimizer, 100, cycle_epochs=0.29), 60)
    assert [step for step, rate in enumerate(rates) if rate == 1.0] == [0, 29, 58]
    assert set(rates_of(other, warm_restarts(other, 100, cycle_epochs=1e-9), 9)) == {1.0}


@pytest.mark.parametrize("schedule", [constant, cosine, linear, multistep, onecycle, warm_restarts])
def test_every_schedule_scales_the_rate_of_each_group(schedule) -> None:
    """A group with a tenth of another's learning rate has a tenth of it at every step."""
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (1.0, 0.1)]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    offered = {"total_steps": 50, "steps_per_epoch": 10, "milestones": [2], "gamma": 0.1, "cycle_epochs": 2}
    taken = {name: offered[name] for name in inspect.signature(schedule).parameters if name in offered}
    plan, rates = schedule(optimizer, **taken), []
    for _ in range(50):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        plan.step()
    assert [small / large for large, small in rates] == pytest.approx([0.1] * 50, rel=1e-3)
    assert max(large for large, _ in rates) == pytest.approx(1.0)


def test_head_first_trains_the_groups_and_then_all() -> None:
    """A group follows `cosine`; the other parameters have a rate of exactly 0, then `cosine` over the steps left."""
    groups = [{"params": [nn.Parameter(torch.zeros(1))], **more} for more in ({"lr": 0.1}, {"match": "fc", "lr": 1.0})]
    optimizer, rates = torch.optim.SGD(groups, lr=0.1), []
    plan = head_first(optimizer, total_steps=50, steps_per_epoch=10, head_epochs=1.5)
    for _ in range(50):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        plan.step()
    rest, head = zip(*rates, strict=True)
    assert rest[:15] == (0,) * 15
    for found, lr, steps in ((rest[15:], 0.1, 35), (head, 1.0, 50)):
        other = optimizer_at(lr)
        assert [*found] == pytest.approx(rates_of(other, cosine(other, steps), steps)[:-1])


def test_head_first_may_end_before_the_rest_is_trained() -> None:
    """If the run is shorter than `head_epochs`, only the groups are trained."""
    groups = [{"params": [nn.Parameter(torch.zeros(1))], **more} for more in ({}, {"match": "fc"})]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    assert set(rates_of(optimizer, head_first(optimizer, 10, 10, head_epochs=2), 10)) == {0}


@pytest.mark.parametrize("groups", [{}, {"match": None}])
def test_head_first_needs_a_head(groups) -> None:
    """Without a group that names parameters, nothing would be trained at first, so it is refused."""
    optimizer = torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))], **groups}], lr=0.1)
    with pytest.raises(ValueError, match=r"type param_groups=\[\{match:fc,"):
        head_first(optimizer, total_steps=50, steps_per_epoch=10)


@pytest.mark.parametrize(("direction", "sign"), [("max", 1), ("min", -1)])
def test_plateau_is_torchs(direction: str, sign: int) -> None:
    """The rates are those of `ReduceLROnPlateau` with the metric itself, of either direction and also if it is NaN."""
    values = [2.0, 2.1, 2.1001, 2.1, float("nan"), 2.0, 2.5, 2.5, 2.5, 2.5]
    ours, theirs = optimizer_at(1.0), optimizer_at(1.0)
    schedule = Plateau(ours, direction, factor=0.5, patience=1, min_lr=0.2)
    reference = ReduceLROnPlateau(theirs, direction, factor=0.5, patience=1, min_lr=0.2)
    rates = []
    for value in values:
        schedule.step()
        schedule.after_validation(sign * value)  # larger is better
        reference.step(value)
        rates.append(ours.param_groups[0]["lr"])
        assert rates[-1] == theirs.param_groups[0]["lr"]
    assert rates[0] == 1.0 and rates[-1] == 0.2


def test_plateau_goes_on_from_its_state() -> None:
    """Interrupted after any validation, it lowers the rate after the same one."""
    for cut in range(4):
        optimizer = optimizer_at(1.0)
        before, after = (Plateau(optimizer, "max", patience=2) for _ in range(2))
        for _ in range(cut):
            before.after_validation(0.5)
        after.load_state_dict(before.state_dict())
        for _ in range(4 - cut):
            assert optimizer.param_groups[0]["lr"] == 1.0
            after.after_validation(0.5)
        assert optimizer.param_groups[0]["lr"] == 0.1
