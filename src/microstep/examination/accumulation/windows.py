"""Real windows of an experiment's first epoch, in fp64, as micro-batches and as one big batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from microstep.examination.accumulation.gradient import weight_of
from microstep.examination.accumulation.loops import Shape
from microstep.training.loaders import Loaders
from microstep.types.data import Batch, LoadedWindow, Mix
from microstep.types.protocols import Precision, Task

EPOCH = 1


@dataclass(frozen=True)
class RealWindow:
    """A window with its data."""

    name: str
    number: int  #: counted from 0 within the epoch
    batches: list[Batch]
    shape: Shape

    @cached_property
    def whole(self) -> Batch:
        """All of it as one batch."""
        return joined(self.batches)


def real_windows(loaders: Loaders, task: Task, precision: Precision, steps: int) -> list[RealWindow]:
    """Return the epoch's first window, and its last where that is cut otherwise.

    Args:
        precision: casts the batches.
        steps: windows an epoch.
    """
    first = next(loaders.train(EPOCH))
    batches = [precision.cast(batch) for batch in first.batches]
    found = [real("first window", first, batches, task, len(batches))]
    last = next(loaders.train(EPOCH, first=steps - 1))
    tail = real("last window", last, [precision.cast(batch) for batch in last.batches], task, len(batches))
    return found if tail.shape.sizes == found[0].shape.sizes else [*found, tail]


def real(name: str, window: LoadedWindow, batches: list[Batch], task: Task, full: int) -> RealWindow:
    """Return a loaded window."""
    weights = [weight_of(task, batch.targets, *batch.mixed) for batch in batches]
    shape = Shape(tuple(map(len, weights)), tuple(float(each.sum()) for each in weights), full)
    return RealWindow(name, window.number, batches, shape)


def joined(batches: Sequence[Batch]) -> Batch:
    """Return consecutive batches as one."""
    fields = ("inputs", "targets", "positions", "indices")
    tensors = {name: torch.cat([getattr(batch, name) for batch in batches]) for name in fields}
    mixes = [batch.mix for batch in batches if batch.mix is not None]
    mix = Mix(torch.cat([m.targets for m in mixes]), torch.cat([m.share for m in mixes])) if mixes else None
    return Batch(**tensors, mix=mix)
