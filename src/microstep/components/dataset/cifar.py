"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009): 50,000 training and 10,000 test images of 3 × 32 × 32."""

import logging
import pickle
from collections.abc import Sequence
from hashlib import md5
from pathlib import Path
from typing import Any

import numpy as np
import torch

from microstep.components.dataset.decoding import Decoder
from microstep.components.dataset.download import download_dataset
from microstep.components.dataset.image_dataset import ImageDataset, image_dataset
from microstep.components.dataset.images import Images
from microstep.errors import DataError

log = logging.getLogger("microstep.notice")
#: Names that the pickle of an array may use; `core` is `_core` since NumPy 2.
ARRAY_NAMES = {
    "numpy.ndarray",
    "numpy.dtype",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.numeric._frombuffer",
    "_codecs.encode",
}


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
    folds: int | None = None,
    fold: int | None = None,
    repeat: int = 0,
) -> ImageDataset:
    """Build CIFAR-10 or CIFAR-100 from the pickled batches below `root`, as torchvision stores them.

    Args:
        classes: 10 or 100.
        root: Directory that holds `cifar-10-batches-py/` or `cifar-100-python/`.
        download: Download the files if they are missing.

    The other arguments are those of `image_dataset`.

    Raises:
        ValueError: If `classes` is neither 10 nor 100.
        DataError: If a file is missing or damaged, or holds more than arrays and plain values. No code in it is run.
    """
    if classes not in (10, 100):
        raise ValueError(f"classes={classes} is neither 10 nor 100")
    from torchvision import datasets  # takes two seconds; it knows the names and checksums of the files

    dataset_class = datasets.CIFAR10 if classes == 10 else datasets.CIFAR100
    folder = Path(root) / dataset_class.base_folder
    if download and not folder.is_dir():
        content_text = f"the content of {dataset_class.filename} ({dataset_class.url})"
        download_dataset(dataset_class.__name__, Path(root), dataset_class.base_folder, content_text)
    check_files(folder, dataset_class)
    train = read_images(folder, dataset_class.train_list, dataset_class)
    test = read_images(folder, dataset_class.test_list, dataset_class)
    decoder = Decoder(32, 32, 3)
    options = resident, num_workers, decoder, folds, fold, repeat
    return image_dataset(train, test, device, val_samples, split_seed, mean, std, *options)


def check_files(folder: Path, dataset_class: Any) -> None:
    """Refuse a folder that lacks a file, and warn of files without the published checksum."""
    meta, changed = (dataset_class.meta["filename"], dataset_class.meta["md5"]), []
    for name, checksum in [*dataset_class.train_list, *dataset_class.test_list, meta]:
        if not (folder / name).is_file():
            unpack = f"unpack {dataset_class.filename} ({dataset_class.url}) into {folder.parent}"
            remedy = f"{unpack}, or {f'remove {folder.name}/ and ' * folder.is_dir()}add dataset.download=true"
            raise DataError(f"dataset.root={folder.parent}", f"{folder.name}/{name} is not there", remedy)
        if md5((folder / name).read_bytes(), usedforsecurity=False).hexdigest() != checksum:
            changed.append(name)
    if changed:
        log.warning("%s is not the published copy: the checksums of %s differ", folder, ", ".join(changed))


def read_images(folder: Path, files: Sequence[Sequence[str]], dataset_class: Any) -> Images:
    """Read the batches in the files, which are pairs of a name and a checksum. Raise DataError if one is damaged."""
    meta = dataset_class.meta
    try:
        names = tuple(map(str, read_plain(file := folder / meta["filename"])[meta["key"]]))
        batches = [read_batch(file := folder / name) for name, _ in files]
    except Exception as error:  # unknown bytes can raise anything
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(str(file), f"it can't be read: {reason}", f"unpack {dataset_class.filename} again") from None
    pixels, labels = map(np.concatenate, zip(*batches, strict=True))
    return Images(pixels, labels, names)


def read_batch(file: Path) -> tuple[np.ndarray, np.ndarray]:
    content = read_plain(file)
    rows, _ = content["data"].shape  # N × 3072
    labels = np.array(content["fine_labels" if "fine_labels" in content else "labels"])
    return content["data"].reshape(rows, 3, 32, 32), labels.astype(np.int64, casting="same_kind")


def read_plain(file: Path) -> Any:
    """Return the content of a pickle of arrays and plain values, with byte strings as Latin-1 text."""
    with file.open("rb") as stream:
        return PlainUnpickler(stream, encoding="latin1").load()


class PlainUnpickler(pickle.Unpickler):
    """Refuses a pickle that names anything but arrays, before it is used."""

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}".replace("._core.", ".core.") not in ARRAY_NAMES:
            raise pickle.UnpicklingError(f"it holds more than arrays and plain values ({module}.{name})")
        return super().find_class(module, name)
