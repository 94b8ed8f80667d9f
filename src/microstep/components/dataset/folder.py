"""Your own pictures: folders of classes, in train/, val/ and test/ or in one directory that is split."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from microstep.components.dataset.decoding import IMAGE_SUFFIXES, MAX_PIXELS, Decoder
from microstep.components.dataset.files import ImageFiles
from microstep.components.dataset.image_dataset import ImageDataset, ImageSplits
from microstep.components.dataset.images import ProgressBar, no_progress_bar
from microstep.components.dataset.splitting import split_stratified
from microstep.errors import ConfigError, DataError

SPLIT_FOLDERS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
BUDGET_GIB = 2.0  #: of pixels in memory, for `resident: auto`
LAYOUT_REMEDY = "make it train/CLASS/*.jpg (val/ and test/ beside it, or none), or CLASS/*.jpg"


def image_folder(
    device: torch.device,
    root: str,
    size: int = 64,
    grey: bool = False,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    split_seed: int = 0,
    resident: bool | str = "auto",
    budget_gib: float = BUDGET_GIB,
    max_pixels: int = MAX_PIXELS,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    num_workers: int | None = None,
    bar: ProgressBar = no_progress_bar,
) -> ImageDataset:
    """Return the pictures below `root`, each a square of `size` pixels.

    The class list is that of the training folder. What of validation and test has no folder of its own is carved from
    the training pictures, stratified.

    Args:
        grey: one channel instead of three.
        val_fraction, test_fraction: of the training pictures, where carved.
        resident: `auto` keeps pixels in memory where all fit `budget_gib`; otherwise files are read when they are due.
        max_pixels: that a file may declare: more is taken for a decompression bomb.

    Raises:
        DataError: for a layout or a file that won't do, naming it.
    """
    if resident not in (True, False, "auto"):
        raise ConfigError(f"dataset.resident={resident}", "no such option", "the options are auto, true, false")
    decoder = Decoder(size, size, 1 if grey else 3, max_pixels)
    official = find_splits(Path(root), decoder)
    carve = partial(make_missing_splits, fractions={"test": test_fraction, "val": val_fraction}, seed=split_seed)
    needed = sum(map(len, official.values())) * decoder.channels * size * size / 2**30
    fits = needed <= budget_gib if resident == "auto" else bool(resident)
    note = f" ({needed:.2f} of at most {budget_gib:g} GiB)" if resident == "auto" else ""
    return ImageDataset(official, carve, device, fits, mean, std, num_workers, bar, note)


def make_missing_splits(official_splits: ImageSplits, fractions: Mapping[str, float], seed: int) -> ImageSplits:
    """Return train, val and test: those without a folder of their own are carved from the training pictures."""
    found = dict(official_splits)
    for name, fraction in fractions.items():
        if name not in official_splits:
            train, subject = found["train"], f"dataset.{name}_fraction={fraction}"
            count = round(fraction * len(official_splits["train"]))
            kept, held_out = split_stratified(train.labels, count, seed, subject, train.class_names)
            found |= {"train": train.at(kept), name: train.at(held_out)}
    return {name: found[name] for name in SPLIT_FOLDERS}


def find_splits(root: Path, decoder: Decoder) -> dict[str, ImageFiles]:
    """Return the splits that are there: `train`, and `val` and `test` where they have folders."""
    if not root.is_dir():
        raise DataError(f"dataset.root={root}", "no such directory", "give the one that holds the pictures")
    inner = {path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir()}
    folders = {name: next((inner[n] for n in names if n in inner), None) for name, names in SPLIT_FOLDERS.items()}
    train = folders["train"]
    if train is None:
        if found := [folder.name for folder in folders.values() if folder]:
            raise DataError(f"dataset.root={root}", f"there is {found[0]}/ but no train/", LAYOUT_REMEDY)
        return {"train": check_train_classes(find_split_images(root, root, find_class_names(root, root), decoder))}
    classes = find_class_names(root, train)
    make = partial(find_split_images, root, class_names=classes, decoder=decoder)
    splits = {name: make(folder) for name, folder in folders.items() if folder}
    return splits | {"train": check_train_classes(splits["train"])}


def find_class_names(root: Path, folder: Path) -> tuple[str, ...]:
    """Return the names of a folder's folders, sorted."""
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(classes) < 2:
        reason = f"{folder} holds {'one class only: ' + classes[0] if classes else 'no folders of classes'}"
        raise DataError(f"dataset.root={root}", reason, LAYOUT_REMEDY)
    return tuple(classes)


def find_split_images(root: Path, folder: Path, class_names: tuple[str, ...], decoder: Decoder) -> ImageFiles:
    """Return a split's files, sorted by class and name; a class may be absent from all but the training folder."""
    strangers = [path.name for path in sorted(folder.iterdir()) if path.is_dir() and path.name not in class_names]
    if strangers := [name for name in strangers if not name.startswith(".")]:
        reason = f"{folder.name}/{strangers[0]} is no class of the training folder"
        raise DataError(f"dataset.root={root}", reason, LAYOUT_REMEDY)
    groups = [sorted(find_images(folder / name)) for name in class_names]
    files = [str(path.relative_to(root)) for group in groups for path in group]
    if not files:
        raise DataError(
            f"dataset.root={root}", f"{folder} holds no pictures ({', '.join(sorted(IMAGE_SUFFIXES))})", LAYOUT_REMEDY
        )
    labels = np.repeat(np.arange(len(class_names)), [len(group) for group in groups])
    return ImageFiles(root, np.array(files), labels, class_names, decoder, np.arange(len(files)))


def check_train_classes(train: ImageFiles) -> ImageFiles:
    """Return the training pictures, where every class has some."""
    for name, count in zip(train.class_names, np.bincount(train.labels, minlength=len(train.class_names)), strict=True):
        if not count:
            reason = f"class {name} has no pictures to train on"
            raise DataError(f"dataset.root={train.root}", reason, "add some, or remove its folder")
    return train


def find_images(folder: Path) -> Iterator[Path]:
    """Yield the pictures of a class, in folders of folders too; none where it has no folder.

    Links are followed, but no folder is gone through twice: links may lead back up.
    """
    seen: set[tuple[int, int]] = set()
    for directory, inner, names in os.walk(
        folder, onerror=raise_unreadable_folder if folder.is_dir() else None, followlinks=True
    ):
        status = Path(directory).stat()
        inode = (status.st_dev, status.st_ino)
        if inode in seen:
            inner.clear()
            continue
        seen.add(inode)
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        suited = (name for name in names if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES)
        yield from (Path(directory) / name for name in suited)


def raise_unreadable_folder(error: OSError) -> None:
    """Refuse a folder that can't be listed: its pictures would be missing in silence."""
    raise DataError(str(error.filename), error.strerror or "it can't be read", "mend its permissions") from None
