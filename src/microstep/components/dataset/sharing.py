"""Shares resident data sets between the jobs of one process. A data set that a job has changed is read again."""

import logging
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any, TypeVar

import torch

from microstep.components.dataset.image_dataset import ImageDataset
from microstep.components.dataset.splits import ResidentSplit

T = TypeVar("T")
log = logging.getLogger("microstep.notice")


class DatasetCache:
    """Shared data sets of the process."""

    datasets: dict[Hashable, tuple[Any, str]] | None = None  #: key → data set and its digest; None: no sharing


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
    not copies, so a data set is built again if its digest has changed.
    """
    cache = DatasetCache.datasets
    if cache is not None and key in cache:
        dataset, digest = cache[key]
        if compute_digest(dataset) == digest:
            return dataset  # type: ignore[no-any-return]
        log.warning("a run has changed the data that runs of this sweep share: they are read again")
    built = build()
    if cache is not None and isinstance(built, ImageDataset) and built.resident:
        cache[key] = built, compute_digest(built)
    return built


def compute_digest(dataset: ImageDataset) -> str:
    """Return a SHA-256 over what the splits of a resident data set hold: every value, in its place."""
    digest = sha256()
    for split in dataset.splits.values():
        assert isinstance(split, ResidentSplit)
        for value in (*vars(split).values(), *vars(split.normalizer).values()):
            is_tensor = isinstance(value, torch.Tensor)
            digest.update(repr(value.shape if is_tensor else value).encode())
            if is_tensor:
                digest.update(value.cpu().contiguous().numpy().data)
    return digest.hexdigest()
