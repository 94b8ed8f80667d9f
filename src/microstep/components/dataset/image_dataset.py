"""Image data set with three splits, resident or streaming. Images are read when they are first needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from microstep.components.dataset.cropping import describe_crop
from microstep.components.dataset.decoding import Decoder, OwnDecoder
from microstep.components.dataset.images import Images, ImageSource, ProgressBar, get_filenames, no_progress_bar
from microstep.components.dataset.normalization import (
    Normalization,
    Normalizer,
    check_mean_and_std,
    compute_normalization,
    read_pixels,
)
from microstep.components.dataset.splits import ResidentSplit, StreamingSplit
from microstep.components.dataset.splitting import hold_out_fold, split_stratified
from microstep.components.dataset.strata import strata_of
from microstep.components.dataset.workers import WorkerPool, worker_count
from microstep.types.data import Split

ImageSplits = Mapping[str, ImageSource]


@dataclass(frozen=True)
class ImageDataset:
    """Training, validation and test images."""

    official_splits: ImageSplits  #: the splits as published, by name
    make_splits: Callable[[ImageSplits], ImageSplits]  #: returns `train`, `val` and `test` from the official splits
    device: torch.device  #: device of the batches
    resident: bool = True  #: keep all images on the device; False reads them when they are needed
    mean: Sequence[float] | None = None  #: per channel, in units of `scale`; None computes it from the training split
    std: Sequence[float] | None = None  #: as `mean`
    num_workers: int | None = None  #: processes that read files; None starts one per core
    progress_bar: ProgressBar = no_progress_bar  #: shown while files are read
    resident_note: str = ""  #: why the data are resident or streaming, for the summary
    decoder: Callable[[Path], Any] | None = field(default=None, kw_only=True)  #: see `image_dataset`
    has_folds: bool = field(default=False, kw_only=True)  #: `val` is one of several folds

    @cached_property
    def image_sources(self) -> ImageSplits:
        return self.make_splits(self.official_splits)

    @cached_property
    def fingerprint(self) -> str:
        return hash_splits(self.image_sources)

    @property
    def facts(self) -> Mapping[str, Any]:
        """Values that the constructors of task and model can take as arguments, by name."""
        train = self.image_sources["train"]
        names, targets = train.class_names, torch.from_numpy(train.labels)
        facts = {"class_names": names, "num_classes": len(names), "input_shape": train.shape}
        return facts | {"train_targets": targets, "train_strata": torch.from_numpy(strata_of(train.labels))}

    @cached_property
    def workers(self) -> WorkerPool:
        """The processes that read files. Images in memory need none unless they are augmented one by one."""
        needed = not (self.resident and self.image_sources["train"].in_memory)
        return WorkerPool(self.image_sources, worker_count(self.num_workers) if needed else 0)

    @cached_property
    def loaded_splits(self) -> ImageSplits:
        """The images of each split, in memory if the data set is resident."""
        return {name: self.load_split(name) for name in self.image_sources}

    def load_split(self, name: str) -> ImageSource:
        source = self.image_sources[name]
        if source.in_memory or not self.resident:
            return source
        chunks = read_pixels(self.workers, name, range(len(source)), source)
        pixels, first = np.empty((len(source), *source.shape), dtype=np.uint8), 0
        for chunk in self.progress_bar(chunks, f"reading {name}", len(source)):  # each holds an open file
            pixels[first : first + len(chunk)] = chunk
            first += len(chunk)
        return Images(pixels, source.labels, source.class_names, source.scale, source.published_indices)

    @cached_property
    def normalization(self) -> Normalization:
        train = self.loaded_splits["train"]
        workers = WorkerPool({"train": train}, 0) if train.in_memory else self.workers
        return compute_normalization(self.mean, self.std, train, workers, self.fingerprint, self.progress_bar)

    @cached_property
    def splits(self) -> Mapping[str, Split]:
        """The splits that batches are fetched from. Workers end once they have read a resident data set."""
        splits = {name: self.make_split(name) for name in self.image_sources}
        if self.resident:
            self.workers.close()
        return splits

    def make_split(self, name: str) -> Split:
        source, normalization = self.loaded_splits[name], self.normalization
        normalizer = Normalizer(source.scale, normalization.mean, normalization.std, self.device)
        if not self.resident:
            return StreamingSplit(name, source, self.workers, normalizer, self.device)
        arrays = source.read(slice(None)), source.labels, source.published_indices
        images, targets, indices = map(torch.from_numpy, arrays)
        files = get_filenames(self.image_sources[name])
        return ResidentSplit(images, targets, indices, normalizer, self.device, files)

    def with_normalization(self, mean: Sequence[float], std: Sequence[float], origin: str) -> ImageDataset:
        """Return the data set with another normalization, averaged for gray images, and repeated for color images."""
        channels = self.image_sources["train"].shape[0]
        if channels == 1:
            mean, std = [sum(mean) / len(mean)], [sum(std) / len(std)]
        mean, std = (tuple(values) * (channels if len(values) == 1 else 1) for values in (mean, std))
        check_mean_and_std(mean, std, channels)
        changed = copy(self)  # keeps the images that have been read
        vars(changed).pop("splits", None)
        vars(changed)["normalization"] = Normalization(mean, std, origin)
        return changed

    @property
    def file_decoder(self) -> Decoder | OwnDecoder | None:
        """The function that makes an image of a file as those of the data set were made; None if it is not known."""
        train = self.image_sources["train"]
        found = self.decoder or getattr(train, "decoder", None)
        return found if found is None or isinstance(found, Decoder) else OwnDecoder(found, train.shape, train.scale)

    @property
    def summary(self) -> str:
        counts = " / ".join(f"{len(source):,} {name}" for name, source in self.image_sources.items())
        size = " × ".join(map(str, self.image_sources["train"].shape))
        backend = "resident" if self.resident else f"streaming, {self.workers.count} workers"
        crop = describe_crop(self.image_sources["train"])
        return f"{counts}; {size}, {backend}{self.resident_note}; {self.normalization}{crop}"


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
    decoder: Callable[[Path], Any] | None = None,
    folds: int | None = None,
    fold: int | None = None,
    repeat: int = 0,
) -> ImageDataset:
    """Build a data set from official training and test images; validation is a stratified part of the former.

    Args:
        train: Official training images, including those for validation.
        test: Official test images.
        device: Device of the batches.
        val_samples: Number of images to hold out for validation.
        split_seed: Seed of the choice of validation images.
        mean: Per channel, after division by the scale of the images; None computes it from the training images.
        std: As `mean`.
        resident: Keep all images on the device. False reads and augments them in worker processes.
        num_workers: Number of worker processes; None starts one per core.
        decoder: Function that `evaluate.py input=` decodes a file with: C × H × W, uint8, like the images. None if it
            is not known; `input=` is refused then.
        folds: Number of equal parts of the training images, one of which is for validation. None: `val_samples` are.
        fold: Number of the part that is for validation, from 0.
        repeat: Number of the random division into folds, from 0.
    """
    make_splits = partial(make_validation_split, val_samples=val_samples, split_seed=split_seed)
    if folds:
        make_splits = partial(make_fold_splits, folds=folds, fold=fold or 0, seed=split_seed, repeat=repeat)
    official = {"train": train, "test": test}
    options = resident, mean, std, num_workers
    return ImageDataset(official, make_splits, device, *options, decoder=decoder, has_folds=bool(folds))


def make_validation_split(official_splits: ImageSplits, val_samples: int, split_seed: int) -> ImageSplits:
    train, test, subject = official_splits["train"], official_splits["test"], f"dataset.val_samples={val_samples}"
    kept, held_out = split_stratified(train.labels, val_samples, split_seed, subject, train.class_names)
    return {"train": train.select(kept), "val": train.select(held_out), "test": test}


def make_fold_splits(official_splits: ImageSplits, folds: int, fold: int, seed: int, repeat: int) -> ImageSplits:
    return {**hold_out_fold(official_splits["train"], folds, fold, seed, repeat), "test": official_splits["test"]}


def hash_splits(splits: ImageSplits) -> str:
    """Return a SHA-256 over the images, labels and published indices of every split, as hexadecimal digits."""
    digest = sha256()
    for name, source in splits.items():
        digest.update(name.encode())
        for buffer in source.iter_content():
            digest.update(buffer)
    return digest.hexdigest()
