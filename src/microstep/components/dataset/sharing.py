"""Shares resident data sets between the jobs of one process. A data set that a job has changed is read again."""

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
    """Shared data sets of the process."""

    datasets: dict[Hashable, tuple[Any, list[float]]] | None = None  #: key → data set and checksums; None: no sharing


@contextmanager
def share_datasets() -> Iterator[None]:
    """Share data sets between the jobs that are built in this block."""
    DatasetCache.datasets = {}
    try:
        yield
    finally:
        DatasetCache.datasets = None


def get_shared(key: Hashable, build: Callable[[], T]) -> T:
    """Return the shared data set for this key, or the result of `build`.

    Only resident data sets are shared: others may have a state of their own or processes. Jobs get the same tensors,
    not copies, so a data set is built again if its checksums have changed.
    """
    cache = DatasetCache.datasets
    if cache is not None and key in cache:
        dataset, checksums = cache[key]
        if compute_checksums(dataset) == checksums:
            return dataset  # type: ignore[no-any-return]
        log.warning("a run has changed the data that runs of this sweep share: they are read again")
    built = build()
    if cache is not None and isinstance(built, ImageDataset) and built.resident:
        cache[key] = built, compute_checksums(built)
    return built


def compute_checksums(dataset: ImageDataset) -> list[float]:
    """Return checksums of a resident data set: sums of pixels, targets and indices, weighted by row."""
    sums: list[float] = []
    for split in dataset.splits.values():
        assert isinstance(split, ResidentSplit)
        weights = torch.arange(1, len(split) + 1)
        pixel_sums = split.images.sum(dim=(1, 2, 3), dtype=torch.int64)
        rows = pixel_sums, split.device_targets, split.device_indices, split.targets, split.indices
        sums += [(values.cpu() * weights).sum().item() for values in rows]
        sums += [tensor.double().sum().item() for tensor in vars(split.normalizer).values() if torch.is_tensor(tensor)]
    return sums
