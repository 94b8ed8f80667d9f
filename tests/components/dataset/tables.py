"""Small images and the tables that list them, for tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from microstep.components.dataset import ImageDataset, table
from tests.components.dataset.folders import CPU, painted

CLASSES = ("ant", "bee", "cat")


def listed(root: Path, header: str, rows: Iterable[Sequence[object]], name: str = "labels.csv") -> Path:
    """Write a table and the images of its first column."""
    texts = [[str(cell) for cell in row] for row in rows]
    for number, row in enumerate(texts):
        painted(root / row[0], 60 * (number % 3))
    file = root / name
    file.write_text("\n".join([header, *(",".join(row) for row in texts)]) + "\n", "utf-8")
    return file


def grouped(root: Path, images: int = 60, size: int = 4) -> Path:
    """Write a table of three classes in groups of some images each, whose members follow each other."""
    rows = [(f"{n:03}.png", CLASSES[n % 3], f"patient {n // size}") for n in range(images)]
    return listed(root, "path,label,group", rows)


def opened_table(file: Path, **keys) -> ImageDataset:
    """Return the data set, read in this process."""
    return table(CPU, str(file), **{"size": 8, "num_workers": 0} | keys)
