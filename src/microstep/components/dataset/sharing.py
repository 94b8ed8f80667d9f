"""Data that the jobs of one process share: read once, and used again only while they are what was read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from microstep.components.dataset.image_dataset import ImageDataset
from microstep.components.dataset.splits import ResidentSplit

T = TypeVar("T")
log = logging.getLogger("microstep.notice")


class DatasetCache:
    """What is shared at present; `None` where nobody shares."""

    held: dict[Hashable, tuple[Any, list[float]]] | None = None


@contextmanager
def share_datasets() -> Iterator[None]:
    """Let data sets that are asked for several times in this block be one object."""
    DatasetCache.held = {}
    try:
        yield
    finally:
        DatasetCache.held = None


def get_shared(key: Hashable, build: Callable[[], T]) -> T:
    """Return what `build` makes, or made before for the same key.

    Only resident pictures are shared: other data sets may have a state of their own, or processes. A job has the very
    tensors in its hands; where their sums are no longer those of when they were read, they are read again.
    """
    if DatasetCache.held is None:
        return build()
    if key in DatasetCache.held:
        dataset, before = DatasetCache.held[key]
        if compute_checksums(dataset) == before:
            return dataset  # type: ignore[no-any-return]
        log.warning("a run has changed the data that runs of this sweep share: they are read again")
    return cached(key, build())


def cached(key: Hashable, dataset: T) -> T:
    """Keep a data set for the next job, where it can be shared."""
    if DatasetCache.held is not None and isinstance(dataset, ImageDataset) and dataset.resident:
        DatasetCache.held[key] = dataset, compute_checksums(dataset)
    return dataset


def compute_checksums(dataset: ImageDataset) -> list[float]:
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
