"""Pictures in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from microstep.dataset.pictures import Bytes, Labels
from microstep.errors import DataError


@dataclass(frozen=True)
class Images:
    """A split as its makers publish it.

    Raises:
        DataError: where pictures and labels don't match, labels are out of range, or there are none.
    """

    pixels: Bytes  #: N × C × H × W
    labels: Labels  #: N
    class_names: tuple[str, ...]
    scale: float = 255.0  #: the pixel value that means 1.0
    indices: Labels | None = None  #: N: each picture's place in what was published, where it isn't 0, 1, 2, …
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
    def places(self) -> Labels:
        """N: each picture's place in what was published."""
        return np.arange(len(self)) if self.indices is None else self.indices

    def at(self, rows: Labels) -> Images:
        """Return some of the pictures; they keep their indices."""
        return replace(self, pixels=self.pixels[rows], labels=self.labels[rows], indices=self.places[rows])

    def read(self, rows: Sequence[int] | slice) -> Bytes:
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
