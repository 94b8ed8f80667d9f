"""Components that training and evaluation share, with and without a precision."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from microstep.errors import CheckpointRefused
from microstep.run.layout import get_report_path
from microstep.run.monitor import Monitor
from microstep.training.loaders import Loaders
from microstep.types import protocols
from microstep.types.data import LoadedWindow
from microstep.utils.randomness import reseed


@dataclass(frozen=True)
class Components:
    """Components that training and evaluation share."""

    device: torch.device
    precision: protocols.Precision
    dataset: protocols.Dataset
    task: protocols.Task
    model: nn.Module
    accumulation: protocols.Accumulation
    loaders: Loaders

    @property
    def steps(self) -> int:
        """Optimizer steps per epoch."""
        return self.accumulation.steps(self.loaders.samples)

    @property
    def has_folds(self) -> bool:
        """Whether the split `val` is one of several folds."""
        return bool(getattr(self.dataset, "has_folds", False))

    @property
    def reports(self) -> dict[str, dict[str, Path]]:
        """Paths of the final reports in the run directory, by checkpoint and split. `best` comes last.

        A fold is also reported with the last checkpoint, which was not chosen on it.
        """
        splits = {"last": ["val"]} if self.has_folds else {}
        splits["best"] = [name for name in ("val", "test") if name in self.loaders.splits]
        return {one: {name: get_report_path(name, one) for name in names} for one, names in splits.items()}

    @property
    def num_parameters(self) -> int:
        """Number of trained parameters."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)


PROFILED_EPOCH = 1  #: epoch that the profiled windows and their seeds come from


@dataclass(frozen=True)
class Optimization:
    """Components that change the weights of one run, or choose among them."""

    optimizer: Optimizer
    scheduler: protocols.Scheduler
    step: protocols.Step
    transform: protocols.Transform | None
    average: protocols.Averaging
    stop: protocols.Stopping
    monitor: Monitor
    compiled: nn.Module | None = None  #: what the step calls instead of the model; it shares the model's tensors


def named_components(components: Components, optimization: Optimization) -> dict[str, Any]:
    """Return the components that training uses, by the names of their states in a checkpoint."""
    step, loaders = optimization.step, components.loaders
    found: dict[str, Any] = {"model": components.model, "optimizer": optimization.optimizer}
    found |= {"scheduler": optimization.scheduler, "precision": components.precision, "metrics": step.metrics}
    found |= {"step": step, "gradient": optimization.transform, "average": optimization.average}
    found |= {"stop": optimization.stop, "task": components.task}
    return found | {"sampler": loaders.sampler, "augment": loaders.augment, "accumulation": components.accumulation}


def stateful_components(components: Components, optimization: Optimization) -> dict[str, Any]:
    """Return what a checkpoint holds the state of, by name."""
    found = named_components(components, optimization)
    always = ("model", "optimizer", "scheduler", "precision", "metrics")
    return {name: part for name, part in found.items() if name in always or isinstance(part, protocols.Stateful)}


def collect_state(components: Components, optimization: Optimization) -> dict[str, Any]:
    """Return the state of all components.

    `model` is what is evaluated. If that is an average, `training` holds the weights that training continues from.
    """
    states = {name: part.state_dict() for name, part in stateful_components(components, optimization).items()}
    if (average := optimization.average.weights(components.model)) is not None:
        states |= {"model": {**states["model"], **average}, "training": states["model"]}
    return states


def load_state(components: Components, optimization: Optimization, state: Mapping[str, Any]) -> None:
    """Load the state of all components. Raise CheckpointRefused if one has a state and `state` lacks it."""
    for name, part in stateful_components(components, optimization).items():
        if name in state:
            part.load_state_dict(state[name])
        elif part.state_dict():
            raise CheckpointRefused("checkpoint", f"it holds no state of {name}", "start a new run")
    if "training" in state:
        optimization.average.load(components.model, state["model"])
        components.model.load_state_dict(state["training"])


@dataclass(frozen=True)
class PartialComponents:
    """Components of an experiment before a precision is chosen: they make its step in any precision."""

    device: torch.device
    dataset: protocols.Dataset
    task: protocols.Task
    model: nn.Module  #: as built; copied, never changed
    accumulation: protocols.Accumulation
    loaders: Loaders
    seed: int
    optimizer: Callable[[nn.Module], Optimizer]
    step: Callable[[protocols.Precision], protocols.Step]

    def windows(self) -> tuple[LoadedWindow, LoadedWindow]:
        """Return two windows of equal size with their data: the first two of epoch 1.

        If the second is shorter or missing, the first window of epoch 2 takes its place.
        """
        windows = [fetch_window(window) for window in islice(self.loaders.train(PROFILED_EPOCH), 2)]
        if len(windows) < 2 or windows[1].samples != windows[0].samples:
            windows[1:] = [fetch_window(next(self.loaders.train(PROFILED_EPOCH + 1)))]
        return windows[0], windows[1]

    def reseed(self, window: LoadedWindow) -> None:
        """Seed the random generators as the trainer does before this window."""
        reseed(self.device, self.seed, PROFILED_EPOCH, window.number)


def fetch_window(window: LoadedWindow) -> LoadedWindow:
    """Return a window that holds its batches, so that timing excludes loading."""
    return replace(window, batches=list(window.batches))
