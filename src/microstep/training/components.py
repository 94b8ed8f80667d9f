"""Parts that training and evaluation share, with and without a precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import nn
from torch.optim import Optimizer

from microstep.training.loaders import Loaders
from microstep.types.data import LoadedWindow
from microstep.types.protocols import Accumulation, Dataset, Precision, Step, Task
from microstep.utils.randomness import reseed


@dataclass(frozen=True)
class Components:
    """What training and evaluation share."""

    device: torch.device
    precision: Precision
    dataset: Dataset
    task: Task
    model: nn.Module
    accumulation: Accumulation
    loaders: Loaders

    @property
    def steps(self) -> int:
        """Optimizer steps an epoch."""
        return self.accumulation.steps(len(self.dataset.splits["train"]))

    @property
    def parameters(self) -> int:
        """Numbers that are trained."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)


PROFILED_EPOCH = 1  #: whose windows are taken, and whose seeds


@dataclass(frozen=True)
class PartialComponents:
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
        windows = [fetch_window(window) for window in islice(self.loaders.train(PROFILED_EPOCH), 2)]
        if len(windows) < 2 or windows[1].samples != windows[0].samples:
            windows[1:] = [fetch_window(next(self.loaders.train(PROFILED_EPOCH + 1)))]
        return windows[0], windows[1]

    def reseed(self, window: LoadedWindow) -> None:
        """Seed what the model draws from, as the trainer does before this window."""
        reseed(self.device, self.seed, PROFILED_EPOCH, window.number)


def fetch_window(window: LoadedWindow) -> LoadedWindow:
    """Return a window that holds its batches: what is timed is no loading."""
    return replace(window, batches=list(window.batches))
