"""Precisions beside each other: time, memory, what fails, and what stays as it was."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from itertools import groupby
from statistics import median
from time import sleep

import pytest
import torch
from torch import nn

from microstep.components.precision.presets import PRESETS
from microstep.errors import ConfigError
from microstep.training.profiling.profile import make_profiled_step, profile_precisions, warm_up
from microstep.training.profiling.timing import TimedCandidate, measure_peak, time_interleaved
from tests.training.profiling.trials import CPU, Picky, trial

pytestmark = pytest.mark.filterwarnings("ignore:.*lr_scheduler.step:UserWarning")


def test_memory_is_the_hand_count() -> None:
    """A linear layer's second step at its gradient: weights, gradients, momentum, inputs, the outputs' gradient."""
    weights, inputs, outputs = 500 * 1000 + 500, 64 * 1000, 64 * 500

    def two_steps() -> object:
        layer = nn.Linear(1000, 500)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9, fused=True)
        for images in (torch.ones(64, 1000),) * 2:
            optimizer.zero_grad()
            layer(images).square().mean().backward()
            optimizer.step()
        return layer, optimizer

    two_steps()  # whatever is allocated once and for all
    scalars = 2  # the loss and its gradient
    assert measure_peak(CPU, two_steps)[1] == 4 * (3 * weights + inputs + outputs + scalars)


def test_what_is_released_is_not_counted() -> None:
    """The peak is of what there is at one time; what was there before has no part in it."""
    before = torch.ones(5000)

    def work() -> None:
        for _ in range(3):
            torch.empty(1000)
        held = torch.empty(500)
        torch.empty(700)
        del held

    assert measure_peak(CPU, work)[1] == 4 * 1200
    assert len(before) == 5000


def test_optimizer_state_is_in_the_memory() -> None:
    """Adam's two moments are: a step with them holds as many more numbers as the model has, at least."""
    experiments = [trial(None, "batch_size=1", *words) for words in ([], ["optimizer=adamw"])]
    sgd, adam = (measure_peak(CPU, lambda one=one: warm_up(one, "fp32", {}, one.windows()))[1] for one in experiments)
    assert adam - sgd >= 4 * sum(p.numel() for p in experiments[0].model.parameters())


def test_everything_is_measured_and_the_experiment_left_alone() -> None:
    """Each has its figures; neither the model nor, at a learning rate of 0, a rig's weights have changed."""
    experiment = trial()
    before = deepcopy(experiment.model.state_dict())
    profile = profile_precisions(experiment, ("fp32", "bf16", "fp16"), budget=0.05)
    assert list(profile.measured) == ["fp32", "bf16", "fp16"]
    assert profile.speed_up("fp32") == 1
    assert all(one.seconds > 0 and one.steps >= 2 and one.peak_bytes > 0 for one in profile.measured.values())
    assert 0.05 < profile.noise < 5
    assert all(map(torch.equal, before.values(), experiment.model.state_dict().values()))
    assert all(parameter.grad is None for parameter in experiment.model.parameters())
    rig = warm_up(experiment, "fp32", {}, experiment.windows())
    assert all(map(torch.equal, before.values(), rig.model.state_dict().values()))
    assert rig.optimizer.state  # though it has stepped


def test_the_users_own_step_is_what_is_timed() -> None:
    """step=sam goes over each window twice."""
    sam = make_profiled_step(trial(None, "step=sam"), PRESETS["fp32"](CPU)).step
    assert type(sam).__name__ == "SAMStep"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried …"), "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried …"), "out of memory"),
        (
            NotImplementedError("\"f\" not implemented for 'Half'\nmore"),
            "not possible: \"f\" not implemented for 'Half'",
        ),
    ],
)
def test_a_precision_that_fails_says_so_and_the_others_go_on(error: Exception, told: str) -> None:
    """Its row has the reason; fp32 is measured all the same."""
    profile = profile_precisions(trial(Picky(error)), ("fp32", "bf16"), budget=0.02)
    assert (list(profile.measured), profile.failed) == (["fp32"], {"bf16": told})


def test_a_model_that_has_no_fp64_is_refused() -> None:
    """There would be nothing to hold the others against: one line says so."""

    class Single(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(64, 10)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.layer(images.flatten(1).float())

    with pytest.raises(ConfigError, match="fp64: precisions are held against it, and on cpu it is not possible"):
        profile_precisions(trial(Single()), ("fp32",), budget=0.02)


def test_windows_are_of_one_size() -> None:
    """The second of epoch 1; where that is shorter or there is none, the first of epoch 2. Their data are there."""
    for size, second in ((64, (1, [64])), (1000, (0, [1000])), (1437, (0, [1437]))):
        first, other = trial(None, f"batch_size={size}").windows()
        assert (other.number, [len(batch.targets) for batch in other.batches]) == second
        assert first.samples == other.samples == size
        assert first.batches[0].indices.tolist() != other.batches[0].indices.tolist()


def lanes(order: list[str], **seconds: float) -> dict[str, TimedCandidate]:
    def step(name: str, takes: float) -> None:
        order.append(name)
        sleep(takes)

    return {name: TimedCandidate(int, lambda _, n=name, t=takes: step(n, t), CPU) for name, takes in seconds.items()}


def runs(order: list[str]) -> Iterator[tuple[str, int]]:
    return ((name, len(list(group))) for name, group in groupby(order))


def test_contestants_take_turns() -> None:
    """Many short steps make a turn, one long one does; the slow one gets two turns, whatever the budget."""
    order: list[str] = []
    racing = lanes(order, fast=0.01, slow=0.15)
    assert time_interleaved(racing, budget=0.25) == {}
    turns = list(runs(order))
    assert [name for name, _ in turns] == ["fast", "slow"] * (len(turns) // 2) + ["fast"] * (len(turns) % 2)
    assert turns[0] == ("fast", 1) and turns[1] == ("slow", 1)  # warm
    assert turns[2][1] > 5 and turns[3] == ("slow", 1)
    assert len(racing["slow"].turns) == 2
    assert median(racing["fast"].turns) == pytest.approx(0.01, rel=0.3)


def test_a_lane_that_fails_falls_out() -> None:
    """The others finish."""
    racing = lanes([], good=0.01)
    failing = iter(range(1))
    racing["bad"] = TimedCandidate(
        int, lambda _: next(failing, None) is None and (_ for _ in ()).throw(MemoryError()), CPU
    )
    assert time_interleaved(racing, budget=0.02) == {"bad": "out of memory"}
    assert len(racing["good"].turns) >= 2
