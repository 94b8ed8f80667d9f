"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009): 50,000 training and 10,000 test images of 3 × 32 × 32."""

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
    """Build CIFAR-10 or CIFAR-100 from the pickled batches below `root`, as torchvision stores them.

    Args:
        classes: 10 or 100.
        root: Directory that holds `cifar-10-batches-py/` or `cifar-100-python/`.
        download: Download the files if they are missing.

    The other arguments are those of `image_dataset`.

    Raises:
        ValueError: If `classes` is neither 10 nor 100.
        DataError: If a file is missing or its checksum is not the published one. No file is unpickled before all are
            checked.
    """
    if classes not in CIFAR_DATASETS:
        raise ValueError(f"classes={classes} is neither 10 nor 100")
    dataset_class = CIFAR_DATASETS[classes]
    folder = Path(root) / dataset_class.base_folder
    if download and not folder.is_dir():
        content_text = f"the content of {dataset_class.filename} ({dataset_class.url})"
        download_dataset(dataset_class, Path(root), dataset_class.base_folder, content_text)
    check_checksums(folder, dataset_class)
    train, test = (to_images(dataset_class(root, train=train)) for train in (True, False))
    return image_dataset(train, test, device, val_samples, split_seed, mean, std, resident, num_workers)


def check_checksums(folder: Path, dataset_class: Any) -> None:
    """Check that every file exists and has the published checksum. torchvision would not name the file."""
    meta = dataset_class.meta["filename"], dataset_class.meta["md5"]
    for name, md5 in [*dataset_class.train_list, *dataset_class.test_list, meta]:
        if not (folder / name).is_file():
            unpack = f"unpack {dataset_class.filename} ({dataset_class.url}) into {folder.parent}"
            remedy = f"{unpack}, or {f'remove {folder.name}/ and ' * folder.is_dir()}add dataset.download=true"
            raise DataError(f"dataset.root={folder.parent}", f"{folder.name}/{name} is not there", remedy)
        if not check_integrity(str(folder / name), md5):
            reason = "its checksum is not the published one, so it is not unpickled"
            raise DataError(str(folder / name), reason, f"unpack {dataset_class.filename} again")


def to_images(dataset: Any) -> Images:
    pixels = np.ascontiguousarray(dataset.data.transpose(0, 3, 1, 2))
    return Images(pixels, np.array(dataset.targets, dtype=np.int64), tuple(dataset.classes))
