"""MNIST, Fashion-MNIST and KMNIST, read from their IDX files."""

import gzip
import zlib
from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np
import torch

from microstep.components.dataset.decoding import Decoder
from microstep.components.dataset.download import download_dataset
from microstep.components.dataset.image_dataset import ImageDataset, image_dataset
from microstep.components.dataset.images import Images
from microstep.errors import DataError

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
MNIST_CLASSES = {
    "MNIST": tuple(f"{label} - {name}" for label, name in enumerate(DIGITS)),  # LeCun, Cortes and Burges, 1998
    "FashionMNIST": FASHION,  # Xiao, Rasul and Vollgraf, 2017
    "KMNIST": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),  # Clanuwat et al., 2018
}
IDX_UINT8 = 8  #: code of the data type in the header
MAX_IDX_BYTES = 2**31  #: most bytes that a header may declare
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
    folds: int | None = None,
    fold: int | None = None,
    repeat: int = 0,
) -> ImageDataset:
    """Build MNIST, Fashion-MNIST or KMNIST: images of 1 × 28 × 28 in ten classes.

    Args:
        kind: `MNIST`, `FashionMNIST` or `KMNIST`.
        root: Directory that holds the four IDX files, itself or in torchvision's subdirectory `<kind>/raw`.
        download: Download the files if they are missing.

    The other arguments are those of `image_dataset`.

    Raises:
        ValueError: If `kind` is unknown.
        DataError: If a file is missing or damaged.
    """
    if kind not in MNIST_CLASSES:
        raise ValueError(f"kind={kind} is unknown: the options are {', '.join(MNIST_CLASSES)}")
    raw = f"{kind}/raw"
    if download and not any(map(has_idx_files, (Path(root), Path(root, raw)))):
        download_dataset(kind, Path(root), raw, IDX_FILES_TEXT)
    remedy = IDX_REMEDY + (DEBIAN_REMEDY if kind == "FashionMNIST" else "")
    directory = Path(root, raw) if has_idx_files(Path(root, raw)) and not has_idx_files(Path(root)) else Path(root)
    train, test = (
        Images(*read_idx_split(directory, prefix, remedy), MNIST_CLASSES[kind]) for prefix in ("train", "t10k")
    )
    decoder = Decoder(28, 28, 1)
    options = resident, num_workers, decoder, folds, fold, repeat
    return image_dataset(train, test, device, val_samples, split_seed, mean, std, *options)


def has_idx_files(directory: Path) -> bool:
    return any(directory.glob("*-ubyte*"))


def read_idx_split(root: Path, prefix: str, remedy: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the images (N × 1 × H × W, uint8) and labels (N, int64) of a split; `prefix` is `train` or `t10k`."""
    pixels = read_idx(find_idx_file(root, f"{prefix}-images-idx3-ubyte", remedy), 3)
    labels = read_idx(find_idx_file(root, f"{prefix}-labels-idx1-ubyte", remedy), 1)
    return pixels[:, None], labels.astype(np.int64)


def find_idx_file(root: Path, name: str, remedy: str) -> Path:
    for file in (root / name, root / f"{name}.gz"):
        if file.is_file():
            return file
    raise DataError(f"dataset.root={root}", f"{name} or {name}.gz is not there", remedy)


def read_idx(file: Path, dimensions: int) -> np.ndarray:
    """Read an IDX file of unsigned bytes, plain or gzipped. Raise a DataError if it is damaged."""
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
        size = "more" if len(content) > prod(shape) else len(content)
        raise idx_error(file, f"it declares {prod(shape)} bytes and holds {size}")
    return np.frombuffer(bytearray(content), dtype=np.uint8).reshape(shape)  # torch warns of arrays it can't write to


def idx_error(file: Path, reason: str) -> DataError:
    return DataError(str(file), reason, "fetch the file again")
