"""Profiles each precision: time, memory, and the error of its gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from microstep.components.precision.presets import PRESETS
from microstep.errors import ConfigError
from microstep.training.components import PartialComponents
from microstep.training.profiling.gradients import (
    LossAndGradient,
    PrecisionAccuracy,
    compute_reference_gradient,
    measure_accuracy,
    relative_distance,
)
from microstep.training.profiling.timing import (
    TimedCandidate,
    failure_reason,
    is_out_of_memory,
    measure_peak,
    time_interleaved,
)
from microstep.types.data import LoadedWindow, StepResult
from microstep.types.protocols import Precision, Step

BUDGET_SECONDS = 2.0  #: seconds of timed steps for each precision
WindowPair = tuple[LoadedWindow, LoadedWindow]


@dataclass(frozen=True)
class Measurement:
    """What a precision costs and loses."""

    turns: tuple[float, ...]  #: seconds that an optimizer step takes, by turn
    steps: int  #: that were timed
    peak_bytes: int  #: weights, gradients, optimizer state and what a step needs meanwhile, but for its data
    accuracy: PrecisionAccuracy

    @property
    def seconds(self) -> float:
        """What a step takes: the median of its turns."""
        return median(self.turns)

    def plain(self) -> dict[str, Any]:
        """Return it for JSON."""
        own = {"seconds": self.seconds, "steps": self.steps, "peak_bytes": self.peak_bytes}
        return own | vars(self.accuracy)


@dataclass(frozen=True)
class Profile:
    """The precisions of an experiment beside each other."""

    measured: Mapping[str, Measurement]  #: by name, fp32 first
    failed: Mapping[str, str]  #: by name, why it couldn't be measured
    noise: float  #: ‖gradient of another window − gradient‖ / ‖gradient‖ in fp64: what rounding has to be held against
    samples: int  #: of a window

    def speed_up(self, name: str) -> float | None:
        """Return how many times as fast as fp32 it is; None where fp32 couldn't be measured.

        It is the median of the turns' ratios: what is a moment's slows both down.
        """
        base = self.measured.get("fp32")
        if base is None:
            return None
        return median(slow / own for slow, own in zip(base.turns, self.measured[name].turns, strict=False))

    def plain(self) -> dict[str, Any]:
        """Return it for JSON."""
        rows = {name: {**one.plain(), "speed_up": self.speed_up(name)} for name, one in self.measured.items()}
        return {"precisions": rows, "failed": dict(self.failed), "noise": self.noise, "window_samples": self.samples}


def profile_precisions(components: PartialComponents, names: Sequence[str], budget: float = BUDGET_SECONDS) -> Profile:
    """Measure precisions with an experiment's own model, step, optimizer and first windows; it stays as it was.

    Args:
        names: of the precisions, fp32 among them.
        budget: seconds of timed steps for each; a slow one takes two turns of one step all the same.

    Raises:
        ConfigError: where fp64, which they are held against, can't be computed.
    """
    windows = components.windows()
    exact, other = (compute_fp64_gradient(components, window) for window in windows)
    found: dict[str, tuple[PrecisionAccuracy, ProfiledStep, int]] = {}
    failed: dict[str, str] = {}
    for name in names:
        try:
            found[name] = prepare_precision(components, name, windows, exact)
        except (RuntimeError, MemoryError) as error:
            if name == "fp32" and not is_out_of_memory(error):
                raise  # the model itself is broken, and the same error would end a training
            failed[name] = failure_reason(error)
    lanes = {name: make_timed_candidate(rig, windows) for name, (_, rig, _) in found.items()}
    failed |= time_interleaved(lanes, budget)
    measured = {
        name: Measurement(tuple(lanes[name].turns), lanes[name].steps - 1, memory, accurate)
        for name, (accurate, _, memory) in found.items()
        if name not in failed
    }
    return Profile(measured, failed, relative_distance([(other.entries, exact.entries)]), windows[0].samples)


def compute_fp64_gradient(components: PartialComponents, window: LoadedWindow) -> LossAndGradient:
    """Return a window's gradient in fp64.

    Raises:
        ConfigError: where the machine or the model can't make it.
    """
    try:
        return compute_reference_gradient(components, window)
    except (RuntimeError, MemoryError, ValueError) as error:
        reason = f"precisions are held against it, and on {components.device} it is {failure_reason(error)}"
        raise ConfigError("fp64", reason, "choose a precision by hand") from error


def prepare_precision(
    components: PartialComponents, name: str, windows: WindowPair, reference_gradient: LossAndGradient
) -> tuple[PrecisionAccuracy, ProfiledStep, int]:
    """Return how accurate a precision is, and what is timed: a rig that has stepped twice, and its memory then.

    After two steps there is the optimizer's state, as there is in training.
    """
    precision = PRESETS[name](components.device)
    accurate = measure_accuracy(components, precision, windows[0], reference_gradient)
    rig, memory = measure_peak(components.device, partial(warm_up, components, name, precision.state_dict(), windows))
    return accurate, rig, memory


def warm_up(components: PartialComponents, name: str, state: dict[str, Any], windows: WindowPair) -> ProfiledStep:
    """Return a rig that has taken two steps; all of it is new, but for its gradient scale."""
    precision = PRESETS[name](components.device)
    precision.load_state_dict(state)
    rig = make_profiled_step(components, precision)
    for window in windows:
        rig(window)
    return rig


def make_timed_candidate(rig: ProfiledStep, windows: WindowPair) -> TimedCandidate:
    """Return what is timed: steps over the two windows by turns."""
    return TimedCandidate(rig.prepare, lambda number: rig(windows[number % 2]), rig.trial.device)


@dataclass(frozen=True)
class ProfiledStep:
    """One precision's own model and optimizer, and the experiment's step."""

    trial: PartialComponents
    precision: Precision
    model: nn.Module
    optimizer: Optimizer
    step: Step

    def prepare(self) -> None:
        """Set what belongs to the whole process as this precision wants it: another one may have had its turn."""
        self.precision.prepare(self.model)

    def __call__(self, window: LoadedWindow) -> StepResult:
        """Take an optimizer step over a window."""
        self.trial.reseed(window)
        return self.step(self.model, self.optimizer, window.batches, window.weight)


def make_profiled_step(components: PartialComponents, precision: Precision) -> ProfiledStep:
    """Return a rig whose steps are all the same work: at a learning rate of 0 the weights stay as they were built."""
    model = precision.prepare(deepcopy(components.model)).train()
    optimizer = components.optimizer(model)
    for group in optimizer.param_groups:
        group["lr"] = zero_learning_rate(group.get("lr"))
    return ProfiledStep(components, precision, model, optimizer, components.step(precision))


def zero_learning_rate(rate: Any) -> Any:
    """Return a learning rate of 0, a tensor where it was one."""
    return torch.zeros_like(rate) if torch.is_tensor(rate) else 0.0
