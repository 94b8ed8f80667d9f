"""The `ImageSource` protocol, and `Images`: a source of images in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar, Protocol

import numpy as np

from microstep.errors import DataError

UInt8Array = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
Int64Array = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
#: int64 N: class numbers; float32 N: numbers; float32 N × C: numbers, or labels 0 and 1. NaN means unknown.
Targets = np.ndarray
#: wraps a stream of image arrays; takes the stream, a label and the number of images
ProgressBar = Callable[[Iterable[np.ndarray], str, int], Iterator[np.ndarray]]
CHUNK_BYTES = 2**22  #: most bytes of pixels that are read at once
CHUNK_FILES = 64  #: most files that are read at once


class ImageSource(Protocol):
    """The images of one split with their labels, all of the same size."""

    @property
    def labels(self) -> Targets:
        """The target of each image."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, or of the columns of N × C targets; empty for N numbers."""

    @property
    def scale(self) -> float:
        """The pixel value that means 1.0."""

    @property
    def in_memory(self) -> bool:
        """Whether the pixels are in memory. If not, reading decodes files, and worker processes speed it up."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""

    @property
    def published_indices(self) -> Int64Array:
        """N: index of each image in the official split."""

    def __len__(self) -> int: ...

    def select(self, rows: Int64Array) -> ImageSource:
        """Return a source of these images; they keep their published indices."""

    def read(self, rows: Sequence[int] | slice) -> UInt8Array:
        """Return the pixels of these images: N × C × H × W."""

    def read_size(self, row: int) -> tuple[int, int]:
        """Return width and height of an image as published, in pixels."""

    def get_name(self, row: int) -> str:
        """Return a name that identifies an image to the user."""

    def iter_content(self) -> Iterator[Any]:
        """Yield buffers that together identify the content of the source, for a hash."""


def get_filenames(source: ImageSource) -> list[str] | None:
    """Return the file of each image, or None if the images are in memory."""
    return None if source.in_memory else [source.get_name(row) for row in range(len(source))]


def no_progress_bar(arrays: Iterable[np.ndarray], label: str, total: int) -> Iterator[np.ndarray]:
    return iter(arrays)


def chunk_rows(rows: Sequence[int], source: ImageSource) -> list[Sequence[int]]:
    """Split rows into chunks to read at once. Those of files are small, so that all workers finish at the same time."""
    size = max(1, CHUNK_BYTES // prod(source.shape))
    size = size if source.in_memory else min(size, CHUNK_FILES)
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def check_targets(targets: Targets, class_names: Sequence[str]) -> None:
    """Raise a DataError if the targets have another type or shape than `Targets`, or there is no name for each."""
    if (str(targets.dtype), targets.ndim) not in (("int64", 1), ("float32", 1), ("float32", 2)):
        reason = f"the labels are {targets.dtype} of shape {targets.shape}"
        raise DataError("dataset", reason, "give int64 or float32, one per image, or float32, N × C")
    classes = len(class_names)
    if targets.ndim == 2 and targets.shape[1] != classes:
        reason = f"the labels have {targets.shape[1]} columns, and there are {classes} names"
        raise DataError("dataset", reason, "name each column")
    if targets.dtype == np.int64 and len(targets) and (targets.min() < 0 or targets.max() >= classes):
        reason = f"labels run from {targets.min()} to {targets.max()}, and there are {classes} classes"
        raise DataError("dataset", reason, "the files may be damaged or another data set's")


@dataclass(frozen=True)
class Images:
    """The images of one split in memory.

    Raises:
        DataError: If the split is empty, an array has the wrong type or shape, or a target has no class name.
    """

    pixels: UInt8Array  #: N × C × H × W
    labels: Targets
    class_names: tuple[str, ...]  #: by class number, or by column of N × C targets; empty for N numbers
    scale: float = 255.0  #: the pixel value that means 1.0
    indices: Int64Array | None = None  #: N: index of each image in the official split; None means 0, 1, 2, …
    in_memory: ClassVar[bool] = True

    def __post_init__(self) -> None:
        pixels, labels = self.pixels, self.labels
        if pixels.dtype != np.uint8 or pixels.ndim != 4:
            reason = f"the images are {pixels.dtype} of shape {pixels.shape}"
            raise DataError("dataset", reason, "give uint8, N × C × H × W")
        if not len(labels) or len(pixels) != len(labels):
            reason = f"{len(pixels)} images and {len(labels)} labels"
            raise DataError("dataset", reason, "a split needs as many labels as images, and at least one")
        check_targets(labels, self.class_names)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        _, channels, height, width = self.pixels.shape
        return channels, height, width

    @property
    def published_indices(self) -> Int64Array:
        return np.arange(len(self)) if self.indices is None else self.indices

    def select(self, rows: Int64Array) -> Images:
        indices = self.published_indices[rows]
        return replace(self, pixels=self.pixels[rows], labels=self.labels[rows], indices=indices)

    def read(self, rows: Sequence[int] | slice) -> UInt8Array:
        """Return the pixels of these images: N × C × H × W; a view if the rows are consecutive."""
        if isinstance(rows, range) and rows.step == 1:
            rows = slice(rows.start, rows.stop)
        return self.pixels[rows]

    def read_size(self, row: int) -> tuple[int, int]:
        return self.shape[2], self.shape[1]

    def get_name(self, row: int) -> str:
        return f"#{self.published_indices[row]}"

    def iter_content(self) -> Iterator[Any]:
        yield f"{self.pixels.shape} {self.class_names}".encode()
        yield from (np.ascontiguousarray(array).data for array in (self.pixels, self.labels, self.published_indices))
