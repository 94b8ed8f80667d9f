"""Data set of image files that were listed by their folders, a table, or code of the user's own."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from microstep.components.dataset.decoding import MAX_PIXELS, Decoder, OwnDecoder
from microstep.components.dataset.files import ImageFiles, cache_decoded
from microstep.components.dataset.image_dataset import ImageDataset, ImageSplits
from microstep.components.dataset.images import ProgressBar, no_progress_bar
from microstep.components.dataset.layout import SPLIT_FOLDERS
from microstep.components.dataset.splitting import hold_out_fold, split_by_fractions
from microstep.errors import ConfigError, DataError

BUDGET_GIB = 2.0  #: most memory for pixels with `resident: auto`


def file_dataset(
    splits: Mapping[str, ImageFiles],
    device: torch.device,
    size: int = 64,
    grey: bool = False,
    fit: str = "crop",
    max_pixels: int = MAX_PIXELS,
    decoder: OwnDecoder | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    split_seed: int = 0,
    folds: int | None = None,
    fold: int | None = None,
    repeat: int = 0,
    resident: bool | str = "auto",
    budget_gib: float = BUDGET_GIB,
    cache: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    num_workers: int | None = None,
    bar: ProgressBar = no_progress_bar,
) -> ImageDataset:
    """Build a data set from image files with their targets. `evaluate.py input=` decodes other files like these.

    Args:
        splits: The files of `train` and, if there are official ones, of `val` and `test`.
        size: Height and width that images are resized to, in pixels.
        grey: Convert images to one channel instead of three.
        fit: `crop` keeps the central square of an image, `pad` puts all of it on black, `squash` distorts it.
        max_pixels: Most pixels that a file may declare, as a protection against decompression bombs.
        decoder: Function of your own that decodes a file, instead of these four options.
        val_fraction: Share of the training images to hold out if there is no `val`. Groups are not divided.
        test_fraction: The same for `test`. With 0 there is no test split.
        folds: Number of equal parts of all but the test images, one of which is `val`; None splits by fractions.
        fold: Number of the part that is `val`, from 0.
        repeat: Number of the random division into folds, from 0.
        resident: Keep all images on the device; `auto` does so if they need at most `budget_gib`.
        budget_gib: Most memory for resident images, in GiB.
        cache: Directory that decoded images are kept in for later epochs and runs; None decodes them each time.
        bar: Progress bar that is shown while files are read.

    The other arguments are those of `image_dataset`.

    Raises:
        ConfigError: If an option is unknown, `cache` is empty, or no images are left to train or validate on.
        DataError: If a file for the cache can't be read.
        StorageError: If there is no room for the cache, or it can't be created.
    """
    if resident not in (True, False, "auto"):
        raise ConfigError(f"dataset.resident={resident}", "no such option", "the options are auto, true, false")
    if cache == "":
        raise ConfigError("dataset.cache=", "an empty name is no directory", "name one, or type dataset.cache=null")
    decode = decoder or Decoder(size, size, 1 if grey else 3, max_pixels, fit)
    splits = merge_val(splits) if folds else splits
    official = {name: replace(files, decoder=decode) for name, files in splits.items()}
    official = official if cache is None else cache_decoded(official, Path(cache))
    fractions = {"test": test_fraction} if folds else {"test": test_fraction, "val": val_fraction}
    make_splits = partial(
        make_missing_splits, fractions=fractions, seed=split_seed, folds=folds, fold=fold or 0, repeat=repeat
    )
    needed = sum(len(files) * prod(files.shape) for files in official.values()) / 2**30
    is_resident = needed <= budget_gib if resident == "auto" else bool(resident)
    note = f" ({needed:.2f} of at most {budget_gib:g} GiB)" if resident == "auto" else ""
    options = mean, std, num_workers, bar, note
    return ImageDataset(official, make_splits, device, is_resident, *options, has_folds=bool(folds))


def merge_val(splits: Mapping[str, ImageFiles]) -> dict[str, ImageFiles]:
    """Return the splits without `val`, whose images come after those of `train`."""
    parts = [splits[name] for name in ("train", "val") if name in splits]
    names = [name for name in ("files", "labels", "groups") if getattr(parts[0], name) is not None]
    joined: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    rest = {name: splits[name] for name in splits if name != "val"}
    return rest | {"train": replace(parts[0], indices=None, **joined)}


def make_missing_splits(
    official_splits: ImageSplits, fractions: Mapping[str, float], seed: int, folds: int | None, fold: int, repeat: int
) -> ImageSplits:
    missing = {name: fraction for name, fraction in fractions.items() if name not in official_splits}
    splits = {**official_splits, **split_by_fractions(official_splits["train"], missing, seed)}
    if folds:
        splits |= hold_out_fold(splits["train"], folds, fold, seed, repeat)
    check_train_classes(splits["train"])
    return {name: splits[name] for name in SPLIT_FOLDERS if name in splits}


def check_train_classes(train: Any) -> None:
    """Raise a DataError if there are images of one class only, or none of some class or label."""
    labels, classes, subject = train.labels, train.class_names, f"dataset.root={train.root}"
    if labels.dtype == np.int64 and len(classes) < 2:
        raise DataError(subject, f"{classes[0]} is the only class", "add images of another")
    used = np.nan_to_num(labels).any(0) if labels.ndim == 2 else np.isin(np.arange(len(classes)), labels)
    if not used.all():
        reason = f"class {classes[used.argmin()]} has no images to train on"
        raise DataError(subject, reason, "add some, or remove the class")
