"""In-memory and on-disk sources of images: the `ImageSource` protocol and `Images`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar, Protocol

import numpy as np

from microstep.errors import DataError

UInt8Array = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
Int64Array = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
ProgressBar = Callable[
    [Iterable[np.ndarray], str, int], Iterator[np.ndarray]
]  #: a stream of arrays, its label, pictures in all
CHUNK_BYTES = 2**22  #: of pictures read at once while streaming
CHUNK_FILES = 64


class ImageSource(Protocol):
    """A split as its makers publish it, all pictures in one size."""

    @property
    def labels(self) -> Int64Array:
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
    def places(self) -> Int64Array:
        """N: each picture's place in what was published."""

    def __len__(self) -> int: ...

    def at(self, rows: Int64Array) -> ImageSource:
        """Return some of the pictures; they keep their places."""

    def read(self, rows: Sequence[int] | slice) -> UInt8Array:
        """Return pixels: N × C × H × W."""

    def sizes(self, rows: Sequence[int]) -> list[tuple[int, int]]:
        """Return width and height as published."""

    def name(self, row: int) -> str:
        """Return what a person finds the picture by."""

    def content(self) -> Iterator[Any]:
        """Yield, as buffers, all that tells these pictures from others."""


def get_filenames(source: ImageSource) -> list[str] | None:
    """Return the pictures' files by row, or None where they are in memory."""
    return None if source.in_memory else [source.name(row) for row in range(len(source))]


def no_progress_bar(arrays: Iterable[np.ndarray], label: str, total: int) -> Iterator[np.ndarray]:
    """Stand in for a bar."""
    return iter(arrays)


def chunk_rows(rows: Sequence[int], source: ImageSource) -> list[Sequence[int]]:
    """Cut rows into chunks whose pixels fit CHUNK_BYTES; of files small enough for all processes to end together."""
    size = max(1, CHUNK_BYTES // prod(source.shape))
    size = size if source.in_memory else min(size, CHUNK_FILES)
    return [rows[start : start + size] for start in range(0, len(rows), size)]


@dataclass(frozen=True)
class Images:
    """A split as its makers publish it.

    Raises:
        DataError: where pictures and labels don't match, labels are out of range, or there are none.
    """

    pixels: UInt8Array  #: N × C × H × W
    labels: Int64Array  #: N
    class_names: tuple[str, ...]
    scale: float = 255.0  #: the pixel value that means 1.0
    indices: Int64Array | None = None  #: N: each picture's place in what was published, where it isn't 0, 1, 2, …
    in_memory: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 4:
            reason = f"the pictures are {self.pixels.dtype} of shape {self.pixels.shape}"
            raise DataError("dataset", reason, "give uint8, N × C × H × W")
        if self.labels.dtype != np.int64 or self.labels.ndim != 1:
            reason = f"the labels are {self.labels.dtype} of shape {self.labels.shape}"
            raise DataError("dataset", reason, "give int64, one a picture")
        if not len(self.labels) or len(self.pixels) != len(self.labels):
            reason = f"{len(self.pixels)} pictures and {len(self.labels)} labels"
            raise DataError("dataset", reason, "a split needs as many labels as pictures, and at least one")
        least, most = self.labels.min(), self.labels.max()
        if least < 0 or most >= len(self.class_names):
            reason = f"labels run from {least} to {most}, and there are {len(self.class_names)} classes"
            raise DataError("dataset", reason, "the files may be damaged or another data set's")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    @property
    def places(self) -> Int64Array:
        """N: each picture's place in what was published."""
        return np.arange(len(self)) if self.indices is None else self.indices

    def at(self, rows: Int64Array) -> Images:
        """Return some of the pictures; they keep their indices."""
        return replace(self, pixels=self.pixels[rows], labels=self.labels[rows], indices=self.places[rows])

    def read(self, rows: Sequence[int] | slice) -> UInt8Array:
        """Return pixels: N × C × H × W; consecutive rows are a view."""
        if isinstance(rows, range) and rows.step == 1:
            rows = slice(rows.start, rows.stop)
        return self.pixels[rows]

    def sizes(self, rows: Sequence[int]) -> list[tuple[int, int]]:
        """Return width and height."""
        return [(self.shape[2], self.shape[1])] * len(rows)

    def name(self, row: int) -> str:
        """Return the picture's number."""
        return f"#{self.places[row]}"

    def content(self) -> Iterator[Any]:
        """Yield pixels, labels and indices."""
        yield f"{self.pixels.shape} {self.class_names}".encode()
        yield from (np.ascontiguousarray(array).data for array in (self.pixels, self.labels, self.places))
