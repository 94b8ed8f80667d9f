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
from microstep.training.components import Trial
from microstep.training.profiling.gradients import Accuracy, Gradient, accuracy, reference, relative_distance
from microstep.training.profiling.timing import Lane, is_of_memory, peak, race, why
from microstep.types.data import LoadedWindow, StepResult
from microstep.types.protocols import Precision, Step

BUDGET = 2.0  #: seconds of timed steps for each precision
Windows = tuple[LoadedWindow, LoadedWindow]


@dataclass(frozen=True)
class Measurement:
    """What a precision costs and loses."""

    turns: tuple[float, ...]  #: seconds that an optimizer step takes, by turn
    steps: int  #: that were timed
    peak_bytes: int  #: weights, gradients, optimizer state and what a step needs meanwhile, but for its data
    accuracy: Accuracy

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


def profiled(components: Trial, names: Sequence[str], budget: float = BUDGET) -> Profile:
    """Measure precisions with an experiment's own model, step, optimizer and first windows; it stays as it was.

    Args:
        names: of the precisions, fp32 among them.
        budget: seconds of timed steps for each; a slow one takes two turns of one step all the same.

    Raises:
        ConfigError: where fp64, which they are held against, can't be computed.
    """
    windows = components.windows()
    exact, other = (referred(components, window) for window in windows)
    found: dict[str, tuple[Accuracy, Rig, int]] = {}
    failed: dict[str, str] = {}
    for name in names:
        try:
            found[name] = prepared(components, name, windows, exact)
        except (RuntimeError, MemoryError) as error:
            if name == "fp32" and not is_of_memory(error):
                raise  # the model itself is broken, and the same error would end a training
            failed[name] = why(error)
    lanes = {name: lane(rig, windows) for name, (_, rig, _) in found.items()}
    failed |= race(lanes, budget)
    measured = {
        name: Measurement(tuple(lanes[name].turns), lanes[name].steps - 1, memory, accurate)
        for name, (accurate, _, memory) in found.items()
        if name not in failed
    }
    return Profile(measured, failed, relative_distance([(other.entries, exact.entries)]), windows[0].samples)


def referred(components: Trial, window: LoadedWindow) -> Gradient:
    """Return a window's gradient in fp64.

    Raises:
        ConfigError: where the machine or the model can't make it.
    """
    try:
        return reference(components, window)
    except (RuntimeError, MemoryError, ValueError) as error:
        reason = f"precisions are held against it, and on {components.device} it is {why(error)}"
        raise ConfigError("fp64", reason, "choose a precision by hand") from error


def prepared(components: Trial, name: str, windows: Windows, reference_gradient: Gradient) -> tuple[Accuracy, Rig, int]:
    """Return how accurate a precision is, and what is timed: a rig that has stepped twice, and its memory then.

    After two steps there is the optimizer's state, as there is in training.
    """
    precision = PRESETS[name](components.device)
    accurate = accuracy(components, precision, windows[0], reference_gradient)
    rig, memory = peak(components.device, partial(warmed, components, name, precision.state_dict(), windows))
    return accurate, rig, memory


def warmed(components: Trial, name: str, state: dict[str, Any], windows: Windows) -> Rig:
    """Return a rig that has taken two steps; all of it is new, but for its gradient scale."""
    precision = PRESETS[name](components.device)
    precision.load_state_dict(state)
    rig = rigged(components, precision)
    for window in windows:
        rig(window)
    return rig


def lane(rig: Rig, windows: Windows) -> Lane:
    """Return what is timed: steps over the two windows by turns."""
    return Lane(rig.prepare, lambda number: rig(windows[number % 2]), rig.trial.device)


@dataclass(frozen=True)
class Rig:
    """One precision's own model and optimizer, and the experiment's step."""

    trial: Trial
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


def rigged(components: Trial, precision: Precision) -> Rig:
    """Return a rig whose steps are all the same work: at a learning rate of 0 the weights stay as they were built."""
    model = precision.prepare(deepcopy(components.model)).train()
    optimizer = components.optimizer(model)
    for group in optimizer.param_groups:
        group["lr"] = still(group.get("lr"))
    return Rig(components, precision, model, optimizer, components.step(precision))


def still(rate: Any) -> Any:
    """Return a learning rate of 0, a tensor where it was one."""
    return torch.zeros_like(rate) if torch.is_tensor(rate) else 0.0
