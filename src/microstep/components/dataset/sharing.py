"""Data that the jobs of one process share: read once, and used again only while they are what was read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from microstep.components.dataset.image_dataset import PictureDataset
from microstep.components.dataset.splits import ResidentSplit

T = TypeVar("T")
log = logging.getLogger("microstep.notice")


class Shelf:
    """What is shared at present; `None` where nobody shares."""

    held: dict[Hashable, tuple[Any, list[float]]] | None = None


@contextmanager
def sharing() -> Iterator[None]:
    """Let data sets that are asked for several times in this block be one object."""
    Shelf.held = {}
    try:
        yield
    finally:
        Shelf.held = None


def shared(key: Hashable, build: Callable[[], T]) -> T:
    """Return what `build` makes, or made before for the same key.

    Only resident pictures are shared: other data sets may have a state of their own, or processes. A job has the very
    tensors in its hands; where their sums are no longer those of when they were read, they are read again.
    """
    if Shelf.held is None:
        return build()
    if key in Shelf.held:
        dataset, before = Shelf.held[key]
        if sums(dataset) == before:
            return dataset  # type: ignore[no-any-return]
        log.warning("a run has changed the data that runs of this sweep share: they are read again")
    return shelved(key, build())


def shelved(key: Hashable, dataset: T) -> T:
    """Keep a data set for the next job, where it can be shared."""
    if Shelf.held is not None and isinstance(dataset, PictureDataset) and dataset.resident:
        Shelf.held[key] = dataset, sums(dataset)
    return dataset


def sums(dataset: PictureDataset) -> list[float]:
    """Return figures that tell changed data: sums of pixels, labels and places, by where they stand."""
    found: list[float] = []
    for split in dataset.splits.values():
        assert isinstance(split, ResidentSplit)
        order = torch.arange(1, len(split) + 1)
        found.append((split.images.sum(dim=(1, 2, 3), dtype=torch.int64).cpu() * order).sum().item())
        found += [(values.cpu() * order).sum().item() for values in (split.labels, split.places)]
        found += [(values * order).sum().item() for values in (split.targets, split.indices)]
        found += [tensor.double().sum().item() for tensor in vars(split.normaliser).values() if torch.is_tensor(tensor)]
    return found
