"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009): 32×32, RGB, 50,000 training and 10,000 test pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torchvision.datasets.utils import check_integrity

from microstep.components.dataset.download import download_dataset
from microstep.components.dataset.image_dataset import ImageDataset, image_dataset
from microstep.components.dataset.images import Images
from microstep.errors import DataError

CIFAR_DATASETS: dict[int, Any] = {10: torchvision.datasets.CIFAR10, 100: torchvision.datasets.CIFAR100}


def cifar(
    device: torch.device,
    classes: int,
    root: str,
    download: bool = False,
    val_samples: int = 5000,
    split_seed: int = 0,
    resident: bool = True,
    num_workers: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> ImageDataset:
    """Return CIFAR-10 or CIFAR-100 as torchvision stores it: pickled batches below `root`, read by its own loader.

    Raises:
        ValueError: for another number of classes.
        DataError: naming what is missing, or not what its makers published: nothing is unpickled then.
    """
    if classes not in CIFAR_DATASETS:
        raise ValueError(f"classes={classes} is neither 10 nor 100")
    dataset_class = CIFAR_DATASETS[classes]
    if download and not (Path(root) / dataset_class.base_folder).is_dir():
        download_dataset(
            dataset_class,
            Path(root),
            dataset_class.base_folder,
            f"the content of {dataset_class.filename} ({dataset_class.url})",
        )
    check_checksums(Path(root) / dataset_class.base_folder, dataset_class)
    train, test = (to_images(dataset_class(root, train=train)) for train in (True, False))
    return image_dataset(train, test, device, val_samples, split_seed, mean, std, resident, num_workers)


def check_checksums(folder: Path, dataset_class: Any) -> None:
    """Name the file that torchvision would refuse."""
    for name, md5 in [
        *dataset_class.train_list,
        *dataset_class.test_list,
        (dataset_class.meta["filename"], dataset_class.meta["md5"]),
    ]:
        if not (folder / name).is_file():
            unpack = f"unpack {dataset_class.filename} ({dataset_class.url}) into {folder.parent}"
            remedy = f"{unpack}, or {f'remove {folder.name}/ and ' * folder.is_dir()}add dataset.download=true"
            raise DataError(f"dataset.root={folder.parent}", f"{folder.name}/{name} is not there", remedy)
        if not check_integrity(str(folder / name), md5):
            reason = "its checksum is not the published one, so it is not unpickled"
            raise DataError(str(folder / name), reason, f"unpack {dataset_class.filename} again")


def to_images(source: Any) -> Images:
    """Return what torchvision has read."""
    pixels = np.ascontiguousarray(source.data.transpose(0, 3, 1, 2))
    return Images(pixels, np.array(source.targets, dtype=np.int64), tuple(source.classes))
