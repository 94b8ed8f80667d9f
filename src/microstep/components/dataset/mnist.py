"""MNIST, Fashion-MNIST and KMNIST, read from their IDX files."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np
import torch
import torchvision

from microstep.components.dataset.download import download_dataset
from microstep.components.dataset.image_dataset import ImageDataset, image_dataset
from microstep.components.dataset.images import Images
from microstep.errors import DataError

MNIST_DATASETS = {
    "MNIST": torchvision.datasets.MNIST,  # LeCun, Cortes and Burges, 1998
    "FashionMNIST": torchvision.datasets.FashionMNIST,  # Xiao, Rasul and Vollgraf, 2017
    "KMNIST": torchvision.datasets.KMNIST,  # Clanuwat et al., 2018
}
IDX_FILES_TEXT = "its four idx files (train-images-idx3-ubyte, …), gzipped or not,"
IDX_REMEDY = "put the four idx files there, gzipped or not, or add dataset.download=true"
DEBIAN_REMEDY = "; Debian and Ubuntu have Fashion-MNIST: apt install dataset-fashion-mnist"


def mnist(
    device: torch.device,
    kind: str,
    root: str,
    download: bool = False,
    val_samples: int = 5000,
    split_seed: int = 0,
    resident: bool = True,
    num_workers: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> ImageDataset:
    """Return MNIST, FashionMNIST or KMNIST from `root`, or from where torchvision puts it: `root`/<kind>/raw.

    Raises:
        ValueError: for another kind.
        DataError: naming the file that is missing or damaged, and how to get it.
    """
    if kind not in MNIST_DATASETS:
        raise ValueError(f"kind={kind} is unknown: the options are {', '.join(MNIST_DATASETS)}")
    raw = f"{kind}/raw"
    if download and not any(map(has_idx_files, (Path(root), Path(root, raw)))):
        download_dataset(MNIST_DATASETS[kind], Path(root), raw, IDX_FILES_TEXT)
    remedy = IDX_REMEDY + (DEBIAN_REMEDY if kind == "FashionMNIST" else "")
    classes = tuple(MNIST_DATASETS[kind].classes)
    directory = find_idx_directory(Path(root), raw)
    train, test = (Images(*read_idx_split(directory, prefix, remedy), classes) for prefix in ("train", "t10k"))
    return image_dataset(train, test, device, val_samples, split_seed, mean, std, resident, num_workers)


def find_idx_directory(root: Path, raw: str) -> Path:
    """Return the directory that holds the files: `root`, or torchvision's below it."""
    return root / raw if has_idx_files(root / raw) and not has_idx_files(root) else root


def has_idx_files(directory: Path) -> bool:
    """Whether a directory holds some idx files."""
    return any(directory.glob("*-ubyte*"))


IDX_UINT8 = 8
MAX_IDX_BYTES = 2**31  #: bytes that a header may declare


def read_idx_split(root: Path, prefix: str, remedy: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a split's pictures (N × 1 × H × W, uint8) and labels (N, int64).

    Raises:
        DataError: naming the file that is missing or damaged; `remedy` says how to get it.
    """
    pixels = read_idx(find_idx_file(root, f"{prefix}-images-idx3-ubyte", remedy), 3)
    labels = read_idx(find_idx_file(root, f"{prefix}-labels-idx1-ubyte", remedy), 1)
    return pixels[:, None], labels.astype(np.int64)


def find_idx_file(root: Path, name: str, remedy: str) -> Path:
    """Return the file, plain or gzipped."""
    candidates = (root / name, root / f"{name}.gz")
    for file in candidates:
        if file.is_file():
            return file
    raise DataError(f"dataset.root={root}", f"{name} or {name}.gz is not there", remedy)


def read_idx(file: Path, dimensions: int) -> np.ndarray:
    """Return the array of one idx file of unsigned bytes.

    Raises:
        DataError: where it is not one, is cut short, or holds more than it declares.
    """
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            magic = stream.read(4)
            if magic != bytes([0, 0, IDX_UINT8, dimensions]):
                raise idx_error(file, f"it is no idx file of {dimensions} dimensions")
            header = stream.read(4 * dimensions)
            if len(header) != 4 * dimensions:
                raise idx_error(file, "its header is cut short")
            shape = np.frombuffer(header, dtype=">u4").tolist()
            if prod(shape) > MAX_IDX_BYTES:
                raise idx_error(file, f"it declares {shape} bytes")
            content = stream.read(prod(shape) + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise idx_error(file, str(error)) from None
    if len(content) != prod(shape):
        raise idx_error(
            file, f"it declares {prod(shape)} bytes and holds {'more' if len(content) > prod(shape) else len(content)}"
        )
    return np.frombuffer(bytearray(content), dtype=np.uint8).reshape(shape)  # torch warns of arrays it can't write to


def idx_error(file: Path, reason: str) -> DataError:
    return DataError(str(file), reason, "fetch the file again")
