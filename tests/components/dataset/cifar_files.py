"""Synthetic files in the format of CIFAR, with their own checksums."""

from __future__ import annotations

import pickle
from hashlib import md5
from pathlib import Path

import numpy as np
import torchvision

KINDS = {10: torchvision.datasets.CIFAR10, 100: torchvision.datasets.CIFAR100}


class Old:
    """A NumPy dtype as the published files have it: pickled by NumPy 1, with numbers for truth values."""

    def __reduce__(self):
        return np.dtype, ("u1", 0, 1)


class OldArray:
    """An array of bytes as the published files have it."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels

    def __reduce__(self):
        state = (1, self.pixels.shape, Old(), False, self.pixels.tobytes())
        return np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), state


def batch(kind: int, number: int, count: int) -> dict:
    """Return a batch as torchvision expects it: rows of 1024 red, 1024 green and 1024 blue bytes, and labels."""
    pixels = np.random.default_rng(number).integers(0, 256, (count, 3072), dtype=np.uint8)
    labels = (np.arange(count) % kind).tolist()
    names = {"labels": labels} if kind == 10 else {"fine_labels": labels, "coarse_labels": [0] * count}
    return {"data": OldArray(pixels)} | names


def stored(file: Path, content: object) -> str:
    """Write a pickle and return its checksum."""
    file.write_bytes(pickle.dumps(content, protocol=2))
    return md5(file.read_bytes()).hexdigest()


def write_cifar(root: Path, classes: int, monkeypatch) -> None:
    """Write files in torchvision's layout, and let torchvision take their checksums for the published ones."""
    kind = KINDS[classes]
    folder = root / kind.base_folder
    folder.mkdir()
    for part, count in (("train_list", 4 * classes), ("test_list", classes)):
        files = [name for name, _ in getattr(kind, part)]
        sums = [stored(folder / name, batch(classes, at, count)) for at, name in enumerate(files)]
        monkeypatch.setattr(kind, part, [list(pair) for pair in zip(files, sums, strict=True)])
    meta = {kind.meta["key"]: [f"name {label}" for label in range(classes)]}
    checksum = stored(folder / kind.meta["filename"], meta)
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": checksum})
