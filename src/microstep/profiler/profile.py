"""All precisions measured with one experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

from microstep.components.precision.presets import MAKERS
from microstep.errors import ConfigError
from microstep.profiler.gradients import Accuracy, Gradient, accuracy, reference, relative_distance
from microstep.profiler.memory import peak
from microstep.profiler.timing import Lane, is_of_memory, race, why
from microstep.profiler.trial import Rig, Trial, rigged
from microstep.types.data import LoadedWindow

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


def profiled(trial: Trial, names: Sequence[str], budget: float = BUDGET) -> Profile:
    """Measure precisions with an experiment's own model, step, optimizer and first windows; it stays as it was.

    Args:
        names: of the precisions, fp32 among them.
        budget: seconds of timed steps for each; a slow one takes two turns of one step all the same.

    Raises:
        ConfigError: where fp64, which they are held against, can't be computed.
    """
    windows = trial.windows()
    exact, other = (referred(trial, window) for window in windows)
    found: dict[str, tuple[Accuracy, Rig, int]] = {}
    failed: dict[str, str] = {}
    for name in names:
        try:
            found[name] = prepared(trial, name, windows, exact)
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


def referred(trial: Trial, window: LoadedWindow) -> Gradient:
    """Return a window's gradient in fp64.

    Raises:
        ConfigError: where the machine or the model can't make it.
    """
    try:
        return reference(trial, window)
    except (RuntimeError, MemoryError, ValueError) as error:
        reason = f"precisions are held against it, and on {trial.device} it is {why(error)}"
        raise ConfigError("fp64", reason, "choose a precision by hand") from error


def prepared(trial: Trial, name: str, windows: Windows, exact: Gradient) -> tuple[Accuracy, Rig, int]:
    """Return how accurate a precision is, and what is timed: a rig that has stepped twice, and its memory then.

    After two steps there is the optimizer's state, as there is in training.
    """
    precision = MAKERS[name](trial.device)
    accurate = accuracy(trial, precision, windows[0], exact)
    rig, memory = peak(trial.device, partial(warmed, trial, name, precision.state_dict(), windows))
    return accurate, rig, memory


def warmed(trial: Trial, name: str, state: dict[str, Any], windows: Windows) -> Rig:
    """Return a rig that has taken two steps; all of it is new, but for its gradient scale."""
    precision = MAKERS[name](trial.device)
    precision.load_state_dict(state)
    rig = rigged(trial, precision)
    for window in windows:
        rig(window)
    return rig


def lane(rig: Rig, windows: Windows) -> Lane:
    """Return what is timed: steps over the two windows by turns."""
    return Lane(rig.prepare, lambda number: rig(windows[number % 2]), rig.trial.device)
