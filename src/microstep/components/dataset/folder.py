"""Image files in one folder per class, in train/, val/ and test/ or in one directory that is split."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from microstep.components.dataset.decoding import IMAGE_SUFFIXES, MAX_PIXELS, Decoder
from microstep.components.dataset.files import ImageFiles, cache_decoded
from microstep.components.dataset.image_dataset import ImageDataset, ImageSplits
from microstep.components.dataset.images import ProgressBar, no_progress_bar
from microstep.components.dataset.layout import LAYOUT_REMEDY, SPLIT_FOLDERS, find_layout
from microstep.components.dataset.listing import count_suffixes, find_files, is_image
from microstep.components.dataset.splitting import split_by_fractions
from microstep.errors import ConfigError, DataError

log = logging.getLogger("microstep.notice")
BUDGET_GIB = 2.0  #: most memory for pixels with `resident: auto`


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
    fit: str = "crop",
    cache: str | None = None,
) -> ImageDataset:
    """Build a data set from image files in one folder per class.

    The classes are those of the training folder. Validation or test images without a folder of their own are a
    stratified part of the training images. The arguments that are not listed are those of `image_dataset`.

    Args:
        root: Directory of the class folders, or of `train/`, `val/` and `test/`.
        size: Height and width that images are resized to, in pixels.
        grey: Convert images to one channel instead of three.
        val_fraction: Share of the training images to hold out if there is no folder for validation.
        test_fraction: Share of the training images to hold out if there is no folder for testing. With 0 there is no
            test split.
        resident: Keep all images on the device; `auto` does so if they need at most `budget_gib`.
        budget_gib: Most memory for resident images, in GiB.
        max_pixels: Most pixels that a file may declare, as a protection against decompression bombs.
        bar: Progress bar that is shown while files are read.
        fit: `crop` keeps the central square of an image, `pad` puts all of it on black, `squash` distorts it.
        cache: Directory that decoded images are kept in for later epochs and runs; None decodes them each time.

    Raises:
        ConfigError: If an option is unknown, `cache` is empty, or no images are left to train or validate on.
        DataError: If the folders have another layout, or a file can't be read.
        StorageError: If there is no room for the cache, or it can't be created.
    """
    if resident not in (True, False, "auto"):
        raise ConfigError(f"dataset.resident={resident}", "no such option", "the options are auto, true, false")
    if cache == "":
        raise ConfigError("dataset.cache=", "an empty name is no directory", "name one, or type dataset.cache=null")
    decoder = Decoder(size, size, 1 if grey else 3, max_pixels, fit)
    official = find_splits(Path(root), decoder)
    official = official if cache is None else cache_decoded(official, Path(cache))
    make_splits = partial(make_missing_splits, fractions={"test": test_fraction, "val": val_fraction}, seed=split_seed)
    needed = sum(map(len, official.values())) * decoder.channels * size * size / 2**30
    is_resident = needed <= budget_gib if resident == "auto" else bool(resident)
    note = f" ({needed:.2f} of at most {budget_gib:g} GiB)" if resident == "auto" else ""
    return ImageDataset(official, make_splits, device, is_resident, mean, std, num_workers, bar, note)


def make_missing_splits(official_splits: ImageSplits, fractions: Mapping[str, float], seed: int) -> ImageSplits:
    missing = {name: fraction for name, fraction in fractions.items() if name not in official_splits}
    splits = {**official_splits, **split_by_fractions(official_splits["train"], missing, seed)}
    return {name: splits[name] for name in SPLIT_FOLDERS if name in splits}


def find_splits(root: Path, decoder: Decoder) -> dict[str, ImageFiles]:
    """Return the splits that have folders; `train` is always one of them. Warn of files that are no images."""
    folders, classes = find_layout(root)
    found = {name: find_class_files(folder, classes) for name, folder in folders.items()}
    if others := [file for files in found.values() for _, file in files if not is_image(file)]:
        log.warning("dataset.root=%s: not read: %s", root, count_suffixes(others))
    splits = {name: select_images(root, folder, found[name], classes, decoder) for name, folder in folders.items()}
    return splits | {"train": check_train_classes(splits["train"])}


def find_class_files(folder: Path, class_names: Sequence[str]) -> list[tuple[int, Path]]:
    """Return label and path of the files of a split, sorted by class and name. A split may lack a class."""
    return [(label, file) for label, name in enumerate(class_names) for file in sorted(find_files(folder / name))]


def select_images(
    root: Path, folder: Path, found: Sequence[tuple[int, Path]], class_names: tuple[str, ...], decoder: Decoder
) -> ImageFiles:
    """Return the images among the files of a split. Raise DataError if there are none."""
    images = [(label, str(file.relative_to(root))) for label, file in found if is_image(file)]
    if not images:
        reason = f"{folder} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})"
        raise DataError(f"dataset.root={root}", reason, LAYOUT_REMEDY)
    labels, files = map(np.array, zip(*images, strict=True))
    return ImageFiles(root, files, labels, class_names, decoder, np.arange(len(files)))


def check_train_classes(train: ImageFiles) -> ImageFiles:
    for name, count in zip(train.class_names, np.bincount(train.labels, minlength=len(train.class_names)), strict=True):
        if not count:
            reason = f"class {name} has no images to train on"
            raise DataError(f"dataset.root={train.root}", reason, "add some, or remove its folder")
    return train
