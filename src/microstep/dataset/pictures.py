"""A split's pictures, wherever they are: in memory, or in files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import prod
from typing import Any, Protocol

import numpy as np

Bytes = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
Labels = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
Bar = Callable[
    [Iterable[np.ndarray], str, int], Iterator[np.ndarray]
]  #: a stream of arrays, its label, pictures in all

CHUNK_BYTES = 2**22  #: of pictures read at once while streaming
CHUNK_FILES = 64


class Pictures(Protocol):
    """A split as its makers publish it, all pictures in one size."""

    @property
    def labels(self) -> Labels:
        """N: classes, by number."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes' names, by number."""

    @property
    def scale(self) -> float:
        """The pixel value that means 1.0."""

    @property
    def in_memory(self) -> bool:
        """Whether reading costs nothing; otherwise it decodes, which is worth a second process."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""

    @property
    def places(self) -> Labels:
        """N: each picture's place in what was published."""

    def __len__(self) -> int: ...

    def at(self, rows: Labels) -> Pictures:
        """Return some of the pictures; they keep their places."""

    def read(self, rows: Sequence[int] | slice) -> Bytes:
        """Return pixels: N × C × H × W."""

    def sizes(self, rows: Sequence[int]) -> list[tuple[int, int]]:
        """Return width and height as published."""

    def name(self, row: int) -> str:
        """Return what a person finds the picture by."""

    def content(self) -> Iterator[Any]:
        """Yield, as buffers, all that tells these pictures from others."""


def files_of(pictures: Pictures) -> list[str] | None:
    """Return the pictures' files by row, or None where they are in memory."""
    return None if pictures.in_memory else [pictures.name(row) for row in range(len(pictures))]


def unseen(parts: Iterable[np.ndarray], label: str, total: int) -> Iterator[np.ndarray]:
    """Stand in for a bar."""
    return iter(parts)


def chunked(rows: Sequence[int], pictures: Pictures) -> list[Sequence[int]]:
    """Cut rows into chunks whose pixels fit CHUNK_BYTES; of files small enough for all processes to end together."""
    size = max(1, CHUNK_BYTES // prod(pictures.shape))
    size = size if pictures.in_memory else min(size, CHUNK_FILES)
    return [rows[start : start + size] for start in range(0, len(rows), size)]
