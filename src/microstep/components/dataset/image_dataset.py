"""A data set of pictures: three splits, resident or streaming. Nothing is read before it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from hashlib import sha256
from typing import Any

import numpy as np
import torch

from microstep.components.dataset.images import Images, ImageSource, ProgressBar, get_filenames, no_progress_bar
from microstep.components.dataset.normalization import Normalization, Normalizer, compute_normalization, read_pixels
from microstep.components.dataset.splits import ResidentSplit, StreamingSplit
from microstep.components.dataset.splitting import split_stratified
from microstep.components.dataset.workers import WorkerPool, worker_count
from microstep.types.data import Split

ImageSplits = Mapping[str, ImageSource]


@dataclass(frozen=True)
class ImageDataset:
    """Training, validation and test pictures.

    Args:
        official: the splits as published, by name: whose statistics papers quote.
        carve: makes `train`, `val` and `test` of them.
        device: where batches come from.
        resident: whether all pixels live there; otherwise they are read when they are due.
        mean, std: per channel, of pixels over their scale; where null, the training split's own, computed exactly.
        num_workers: processes that read files; null for one a core.
        bar: shown while files are read.
        note: what the summary says of how it was made.
    """

    official: ImageSplits
    carve: Callable[[ImageSplits], ImageSplits]
    device: torch.device
    resident: bool = True
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    num_workers: int | None = None
    bar: ProgressBar = no_progress_bar
    note: str = ""
    own_normalisation: Normalization | None = field(default=None, kw_only=True)  #: that of pretrained weights

    @cached_property
    def pictures(self) -> ImageSplits:
        """Those of `train`, `val` and `test`."""
        return self.carve(self.official)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over every split's pictures, labels and places."""
        return hash_splits(self.pictures)

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the constructors of task and model may ask for."""
        train = self.pictures["train"]
        return {
            "class_names": train.class_names,
            "num_classes": len(train.class_names),
            "input_shape": train.shape,
            "train_targets": torch.from_numpy(train.labels),
        }

    @cached_property
    def workers(self) -> WorkerPool:
        """The processes that read files; pictures in memory need none, unless they are augmented one by one."""
        needed = not (self.resident and self.pictures["train"].in_memory)
        return WorkerPool(self.pictures, worker_count(self.num_workers) if needed else 0)

    @cached_property
    def held(self) -> ImageSplits:
        """The pictures, in memory where they are to be resident."""
        return {name: self.loaded(name) if self.resident else one for name, one in self.pictures.items()}

    def loaded(self, name: str) -> ImageSource:
        """Return a split in memory."""
        pictures = self.pictures[name]
        if pictures.in_memory:
            return pictures
        parts = read_pixels(self.workers, name, range(len(pictures)), pictures)
        pixels = np.concatenate(list(self.bar(parts, f"reading {name}", len(pictures))))
        return Images(pixels, pictures.labels, pictures.class_names, pictures.scale, pictures.places)

    @cached_property
    def normalisation(self) -> Normalization:
        """What inputs are normalised by."""
        if self.own_normalisation is not None:
            return self.own_normalisation
        train = self.held["train"]
        workers = WorkerPool({"train": train}, 0) if train.in_memory else self.workers
        return compute_normalization(self.mean, self.std, train, workers, self.fingerprint, self.bar)

    @cached_property
    def splits(self) -> Mapping[str, Split]:
        """The splits, ready; what read them into memory has ended."""
        splits = {name: self.split(name) for name in self.pictures}
        if self.resident:
            self.workers.close()
        return splits

    def split(self, name: str) -> Split:
        """Return one split on its backend."""
        pictures, found = self.held[name], self.normalisation
        normaliser = Normalizer(pictures.scale, found.mean, found.std, self.device)
        if not self.resident:
            return StreamingSplit(name, pictures, self.workers, normaliser, self.device)
        pixels = torch.from_numpy(pictures.read(slice(None)))
        labels, indices = torch.from_numpy(pictures.labels), torch.from_numpy(pictures.places)
        return ResidentSplit(pixels, labels, indices, normaliser, self.device, get_filenames(self.pictures[name]))

    def normalised_by(self, mean: Sequence[float], std: Sequence[float]) -> ImageDataset:
        """Return the data set normalised as the weights expect it that a model starts from."""
        if self.pictures["train"].shape[0] == 1 and len(mean) > 1:
            mean, std = [sum(mean) / len(mean)], [sum(std) / len(std)]
        return replace(self, own_normalisation=Normalization(tuple(mean), tuple(std), "the weights' own"))

    @property
    def summary(self) -> str:
        """The data set in one line."""
        counts = " / ".join(f"{len(pictures):,} {name}" for name, pictures in self.pictures.items())
        size = " × ".join(map(str, self.pictures["train"].shape))
        backend = "resident" if self.resident else f"streaming, {self.workers.count} workers"
        return f"{counts}; {size}, {backend}{self.note}; {self.normalisation}"


def image_dataset(
    train: ImageSource,
    test: ImageSource,
    device: torch.device,
    val_samples: int,
    split_seed: int,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    resident: bool = True,
    num_workers: int | None = None,
) -> ImageDataset:
    """Return official training and test pictures as a data set; validation is carved from the former, stratified."""
    carve = partial(make_validation_split, val_samples=val_samples, split_seed=split_seed)
    return ImageDataset({"train": train, "test": test}, carve, device, resident, mean, std, num_workers)


def make_validation_split(official_splits: ImageSplits, val_samples: int, split_seed: int) -> ImageSplits:
    """Return train, val and test, validation carved from the official training pictures."""
    train, test, subject = official_splits["train"], official_splits["test"], f"dataset.val_samples={val_samples}"
    kept, held_out = split_stratified(train.labels, val_samples, split_seed, subject, train.class_names)
    return {"train": train.at(kept), "val": train.at(held_out), "test": test}


def hash_splits(splits: ImageSplits) -> str:
    """Return a SHA-256 over every split's pictures, labels and places."""
    digest = sha256()
    for name, pictures in splits.items():
        digest.update(name.encode())
        for buffer in pictures.content():
            digest.update(buffer)
    return digest.hexdigest()
