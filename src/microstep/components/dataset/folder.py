"""Image files in one folder per class, in train/, val/ and test/ or in one directory that is split."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from microstep.components.dataset.decoding import IMAGE_SUFFIXES, MAX_PIXELS
from microstep.components.dataset.file_dataset import BUDGET_GIB, file_dataset
from microstep.components.dataset.files import ImageFiles
from microstep.components.dataset.image_dataset import ImageDataset
from microstep.components.dataset.images import ProgressBar, no_progress_bar
from microstep.components.dataset.layout import LAYOUT_REMEDY, find_layout
from microstep.components.dataset.listing import count_suffixes, find_files, is_image
from microstep.errors import DataError

log = logging.getLogger("microstep.notice")


def image_folder(
    device: torch.device,
    root: str,
    max_pixels: int = MAX_PIXELS,
    budget_gib: float = BUDGET_GIB,
    resident: bool | str = "auto",
    num_workers: int | None = None,
    bar: ProgressBar = no_progress_bar,
    **options: Any,
) -> ImageDataset:
    """Build a data set from image files in one folder per class.

    The classes are those of the training folder. Validation or test images without a folder of their own are a
    stratified part of the training images.

    Args:
        root: Directory of the class folders, or of `train/`, `val/` and `test/`.
        options: Further arguments of `file_dataset`, which describes the others, too.

    Raises:
        DataError: If the folders have another layout, or a file can't be read.
        MicrostepError: See `file_dataset`.
    """
    options |= {"max_pixels": max_pixels, "budget_gib": budget_gib, "resident": resident}
    return file_dataset(find_splits(Path(root)), device, num_workers=num_workers, bar=bar, **options)


def find_splits(root: Path) -> dict[str, ImageFiles]:
    """Return the splits that have folders; `train` is always one of them. Warn of files that are no images."""
    folders, classes = find_layout(root)
    found = {name: find_class_files(folder, classes) for name, folder in folders.items()}
    if others := [file for files in found.values() for _, file in files if not is_image(file)]:
        log.warning("dataset.root=%s: not read: %s", root, count_suffixes(others))
    return {name: select_images(root, folder, found[name], classes) for name, folder in folders.items()}


def find_class_files(folder: Path, class_names: Sequence[str]) -> list[tuple[int, Path]]:
    """Return label and path of the files of a split, sorted by class and name. A split may lack a class."""
    return [(label, file) for label, name in enumerate(class_names) for file in sorted(find_files(folder / name))]


def select_images(
    root: Path, folder: Path, found: Sequence[tuple[int, Path]], class_names: tuple[str, ...]
) -> ImageFiles:
    """Return the images among the files of a split. Raise DataError if there are none."""
    images = [(label, str(file.relative_to(root))) for label, file in found if is_image(file)]
    if not images:
        reason = f"{folder} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})"
        raise DataError(f"dataset.root={root}", reason, LAYOUT_REMEDY)
    labels, files = map(np.array, zip(*images, strict=True))
    return ImageFiles(root, files, labels, class_names)
