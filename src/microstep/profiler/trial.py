"""An experiment whose precision is still open, and its step made in one."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from microstep.loaders import Loaders
from microstep.types.data import LoadedWindow, StepResult
from microstep.types.protocols import Accumulation, Dataset, Precision, Step, Task
from microstep.utils.randomness import reseed

EPOCH = 1  #: whose windows are taken, and whose seeds


@dataclass(frozen=True)
class Trial:
    """What it takes to make an experiment's step in any precision."""

    device: torch.device
    dataset: Dataset
    task: Task
    model: nn.Module  #: as it was built; it is copied and never touched
    accumulation: Accumulation
    loaders: Loaders
    seed: int
    optimizer: Callable[[nn.Module], Optimizer]
    step: Callable[[Precision], Step]

    def windows(self) -> tuple[LoadedWindow, LoadedWindow]:
        """Return two windows of equal size, their data fetched: the first of epoch 1, and the next one.

        Where the next is shorter, or there is none, it is the first of epoch 2.
        """
        windows = [fetched(window) for window in islice(self.loaders.train(EPOCH), 2)]
        if len(windows) < 2 or windows[1].samples != windows[0].samples:
            windows[1:] = [fetched(next(self.loaders.train(EPOCH + 1)))]
        return windows[0], windows[1]

    def reseed(self, window: LoadedWindow) -> None:
        """Seed what the model draws from, as the trainer does before this window."""
        reseed(self.device, self.seed, EPOCH, window.number)


def fetched(window: LoadedWindow) -> LoadedWindow:
    """Return a window that holds its batches: what is timed is no loading."""
    return replace(window, batches=list(window.batches))


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


def rigged(trial: Trial, precision: Precision) -> Rig:
    """Return a rig whose steps are all the same work: at a learning rate of 0 the weights stay as they were built."""
    model = precision.prepare(deepcopy(trial.model)).train()
    optimizer = trial.optimizer(model)
    for group in optimizer.param_groups:
        group["lr"] = still(group.get("lr"))
    return Rig(trial, precision, model, optimizer, trial.step(precision))


def still(rate: Any) -> Any:
    """Return a learning rate of 0, a tensor where it was one."""
    return torch.zeros_like(rate) if torch.is_tensor(rate) else 0.0
