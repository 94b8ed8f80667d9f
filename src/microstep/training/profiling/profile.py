"""Profiles precisions: time, memory and the error of the gradient."""

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
from microstep.training.device import torch_errors
from microstep.training.profiling import gradients, timing
from microstep.training.profiling.gradients import LossAndGradient, PrecisionAccuracy
from microstep.types.data import LoadedWindow, StepResult
from microstep.types.protocols import Precision, Step
from microstep.utils.tensors import is_out_of_memory

BUDGET_SECONDS = 2.0  #: seconds of timed steps for each precision
WindowPair = tuple[LoadedWindow, LoadedWindow]


@dataclass(frozen=True)
class Measurement:
    """Cost and error of a precision."""

    turns: tuple[float, ...]  #: seconds per optimizer step in each turn
    steps: int  #: number of timed steps
    peak_bytes: int  #: weights, gradients, optimizer state and activations, without the data
    accuracy: PrecisionAccuracy

    @property
    def seconds(self) -> float:
        """Seconds per step: the median over the turns."""
        return median(self.turns)

    def plain(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "steps": self.steps, "peak_bytes": self.peak_bytes, **vars(self.accuracy)}


@dataclass(frozen=True)
class Profile:
    """Measurements of the precisions of an experiment."""

    measured: Mapping[str, Measurement]  #: by name, fp32 first
    failed: Mapping[str, str]  #: by name, the reason
    noise: float  #: ‖gradient of another window − gradient‖ / ‖gradient‖ in fp64
    samples: int  #: in a window

    def speed_up(self, name: str) -> float | None:
        """Return how many times as fast as fp32 a precision is, in the median of the turns; None without fp32."""
        base = self.measured.get("fp32")
        if base is None:
            return None
        turns = zip(base.turns, self.measured[name].turns, strict=False)  # a slow moment affects both
        return median(slow / own for slow, own in turns)

    def plain(self) -> dict[str, Any]:
        rows = {name: {**one.plain(), "speed_up": self.speed_up(name)} for name, one in self.measured.items()}
        return {"precisions": rows, "failed": dict(self.failed), "noise": self.noise, "window_samples": self.samples}


def profile_precisions(components: PartialComponents, names: Sequence[str], budget: float = BUDGET_SECONDS) -> Profile:
    """Measure precisions with the model, step, optimizer and first windows of an experiment, which stays unchanged.

    `names` include fp32. At least two turns of each are timed, and `budget` seconds. Raise ConfigError if the
    reference gradient in fp64 can't be computed.
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
            failed[name] = timing.failure_reason(error)
    candidates = {name: make_timed_candidate(profiled_step, windows) for name, (_, profiled_step, _) in found.items()}
    failed |= timing.time_interleaved(candidates, budget)
    measured = {
        name: Measurement(tuple(candidates[name].turns), candidates[name].steps - 1, memory, accurate)
        for name, (accurate, _, memory) in found.items()
        if name not in failed
    }
    return Profile(measured, failed, gradients.relative_distance([(other.entries, exact.entries)]), windows[0].samples)


def compute_fp64_gradient(components: PartialComponents, window: LoadedWindow) -> LossAndGradient:
    """Return a window's gradient in fp64, or raise ConfigError if the machine or the model can't compute it."""
    try:
        with torch_errors():
            return gradients.compute_reference_gradient(components, window)
    except (RuntimeError, MemoryError, ValueError) as error:
        reason = f"precisions are held against it, and on {components.device} it is {timing.failure_reason(error)}"
        raise ConfigError("fp64", reason, "choose a precision by hand") from error


def prepare_precision(
    components: PartialComponents, name: str, windows: WindowPair, reference_gradient: LossAndGradient
) -> tuple[PrecisionAccuracy, ProfiledStep, int]:
    """Return the accuracy of a precision, its step after two warm-up steps, and the peak memory of these."""
    precision = PRESETS[name](components.device)
    accurate = gradients.measure_accuracy(components, precision, windows[0], reference_gradient)
    work = partial(warm_up, components, name, precision.state_dict(), windows)
    return accurate, *timing.measure_peak(components.device, work)


def warm_up(components: PartialComponents, name: str, state: dict[str, Any], windows: WindowPair) -> ProfiledStep:
    """Return a new step that has been taken over both windows; it starts at the gradient scale in `state`."""
    precision = PRESETS[name](components.device)
    precision.load_state_dict(state)
    profiled_step = make_profiled_step(components, precision)
    for window in windows:
        profiled_step(window)
    return profiled_step


def make_timed_candidate(profiled_step: ProfiledStep, windows: WindowPair) -> timing.TimedCandidate:
    device = profiled_step.components.device
    return timing.TimedCandidate(profiled_step.prepare, lambda number: profiled_step(windows[number % 2]), device)


@dataclass(frozen=True)
class ProfiledStep:
    """Step of the experiment in one precision, with its own model and optimizer."""

    components: PartialComponents
    precision: Precision
    model: nn.Module
    optimizer: Optimizer
    step: Step

    def prepare(self) -> None:
        """Set the process-wide options of this precision, which another one may have changed."""
        self.precision.prepare(self.model)

    def __call__(self, window: LoadedWindow) -> StepResult:
        self.components.reseed(window)
        return self.step(self.model, self.optimizer, window.batches, window.weight)


def make_profiled_step(components: PartialComponents, precision: Precision) -> ProfiledStep:
    """Return a step with a learning rate of 0: the weights stay unchanged, so that all steps do the same work."""
    model = precision.prepare(deepcopy(components.model)).train()
    optimizer = components.optimizer(model)
    for group in optimizer.param_groups:
        rate = group.get("lr")
        group["lr"] = torch.zeros_like(rate) if torch.is_tensor(rate) else 0.0
    return ProfiledStep(components, precision, model, optimizer, components.step(precision))
