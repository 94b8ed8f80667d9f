"""Folders of small images, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from microstep.components.dataset import ImageDataset, image_folder

CPU = torch.device("cpu")


def painted(file: Path, value: int, size: int = 8) -> None:
    """Write an image of noise around a value; the same for the same name and value."""
    file.parent.mkdir(parents=True, exist_ok=True)
    seed = [value, *file.name.encode(errors="surrogateescape")]
    noise = np.random.default_rng(seed).integers(0, 56, (size, size, 3), dtype=np.uint8)
    with file.open("wb") as stream:
        Image.fromarray(noise + np.uint8(value)).save(stream, "png")


def filled(folder: Path, counts: Mapping[str, int]) -> Path:
    """Write so many images of each class."""
    for number, (name, count) in enumerate(counts.items()):
        for picture in range(count):
            painted(folder / name / f"{picture:03}.png", 60 * (number % 4))
    return folder


def opened(root: Path, **keys) -> ImageDataset:
    """Return the data set, read in this process."""
    return image_folder(CPU, str(root), **{"size": 8, "num_workers": 0} | keys)


def sizes(dataset: ImageDataset) -> dict[str, int]:
    return {name: len(pictures) for name, pictures in dataset.image_sources.items()}


def names(dataset: ImageDataset, split: str) -> list[str]:
    """Return a split's files, as they are named below the root."""
    pictures = dataset.image_sources[split]
    return [pictures.get_name(row) for row in range(len(pictures))]
