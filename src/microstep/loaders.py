"""Batches in the epoch's order, cut as the accumulation plans it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import fsum
from time import perf_counter

import torch
from torch import Tensor

from microstep.randomness import permutation
from microstep.types import Accumulation, Batch, LoadedWindow, Positions, Split, Task, Window


class Loaders:
    """Training windows and evaluation batches of all splits.

    The order of an epoch is a pure function of (seed, epoch). A window's weight is summed from the labels alone.

    Args:
        splits: by name; `train` is the one that is shuffled.
        accumulation: how an epoch's order is cut.
        task: says what a sample weighs.
        eval_batch_size: samples in a batch of evaluation.
        seed: the run's.
        device: where the epoch's order is kept.
    """

    def __init__(
        self,
        splits: Mapping[str, Split],
        accumulation: Accumulation,
        task: Task,
        eval_batch_size: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.splits, self.accumulation, self.seed, self.device = splits, accumulation, seed, device
        self.eval_batch_size = eval_batch_size
        self.weights = task.weight(splits["train"].targets)
        self.clock = Clock()

    def train(self, epoch: int) -> Iterator[LoadedWindow]:
        """Yield the epoch's windows; their batches are fetched when they are iterated."""
        split = self.splits["train"]
        order = permutation(len(split), self.seed, epoch)
        weights = self.weights[order]
        places = Places(order.to(self.device), torch.arange(len(split), device=self.device))
        for number, window in enumerate(self.accumulation.windows(range(len(split)))):
            weight = fsum(at(weights, positions).sum().item() for positions in window.micro_batches)
            samples = sum(map(len, window.micro_batches))
            yield LoadedWindow(number, samples, weight, Fetched(split, places, window, self.clock))

    def evaluation(self, name: str) -> Iterator[Batch]:
        """Yield a split's batches in its own order."""
        split = self.splits[name]
        for rows in torch.split(torch.arange(len(split), device=self.device), self.eval_batch_size):
            yield split.fetch(rows, rows)


@dataclass
class Clock:
    """Seconds that training has waited for data."""

    waited: float = 0.0


@dataclass(frozen=True)
class Places:
    """An epoch's order on the device: which row stands at which position."""

    order: Tensor
    positions: Tensor


@dataclass(frozen=True)
class Fetched:
    """A window's batches, fetched one at a time, afresh at each iteration."""

    split: Split
    places: Places
    window: Window
    clock: Clock

    def __iter__(self) -> Iterator[Batch]:
        return map(self.fetch, self.window.micro_batches)  # map keeps no reference to what it has yielded

    def fetch(self, positions: Positions) -> Batch:
        """Fetch one micro-batch, and note how long that took."""
        start = perf_counter()
        batch = self.split.fetch(at(self.places.order, positions), at(self.places.positions, positions))
        self.clock.waited += perf_counter() - start
        return batch


def at(values: Tensor, positions: Positions) -> Tensor:
    """Return the values at some positions; a range is a view."""
    if isinstance(positions, range) and positions.step == 1:
        return values[positions.start : positions.stop]
    return values[list(positions)]
