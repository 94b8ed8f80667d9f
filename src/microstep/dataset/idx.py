"""The idx format of MNIST and its kin: big-endian header, then bytes; gzipped or not."""

from __future__ import annotations

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np

from microstep.errors import DataError

UNSIGNED_BYTE = 8
LARGEST = 2**31  #: bytes that a header may declare


def read_idx_split(root: Path, prefix: str, remedy: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a split's pictures (N × 1 × H × W, uint8) and labels (N, int64).

    Raises:
        DataError: naming the file that is missing or damaged; `remedy` says how to get it.
    """
    pixels = read_idx(find(root, f"{prefix}-images-idx3-ubyte", remedy), 3)
    labels = read_idx(find(root, f"{prefix}-labels-idx1-ubyte", remedy), 1)
    return pixels[:, None], labels.astype(np.int64)


def find(root: Path, name: str, remedy: str) -> Path:
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
            if magic != bytes([0, 0, UNSIGNED_BYTE, dimensions]):
                raise damaged(file, f"it is no idx file of {dimensions} dimensions")
            header = stream.read(4 * dimensions)
            if len(header) != 4 * dimensions:
                raise damaged(file, "its header is cut short")
            shape = np.frombuffer(header, dtype=">u4").tolist()
            if prod(shape) > LARGEST:
                raise damaged(file, f"it declares {shape} bytes")
            content = stream.read(prod(shape) + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(file, str(error)) from None
    if len(content) != prod(shape):
        raise damaged(
            file, f"it declares {prod(shape)} bytes and holds {'more' if len(content) > prod(shape) else len(content)}"
        )
    return np.frombuffer(bytearray(content), dtype=np.uint8).reshape(shape)  # torch warns of arrays it can't write to


def damaged(file: Path, reason: str) -> DataError:
    return DataError(str(file), reason, "fetch the file again")
