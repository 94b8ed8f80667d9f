"""Pictures in files, decoded to one size when they are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from microstep.dataset.decoding import Decoder, size_of
from microstep.dataset.digests import digests
from microstep.dataset.pictures import Bytes, Labels


@dataclass(frozen=True)
class PictureFiles:
    """Picture files below a directory, with their classes."""

    root: Path
    files: np.ndarray  #: N: paths relative to `root`
    labels: Labels  #: N
    class_names: tuple[str, ...]
    decoder: Decoder
    places: Labels  #: N: each file's place in the sorted list of its split's files
    scale: ClassVar[float] = 255.0
    in_memory: ClassVar[bool] = False

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return self.decoder.shape

    def at(self, rows: Labels) -> PictureFiles:
        """Return some of the pictures; they keep their places."""
        return replace(self, files=self.files[rows], labels=self.labels[rows], places=self.places[rows])

    def read(self, rows: Sequence[int] | slice) -> Bytes:
        """Return pixels: N × C × H × W.

        Raises:
            DataError: naming the first file that can't be read.
        """
        pixels = [self.decoder(self.root / file) for file in self.files[rows]]
        return np.stack(pixels) if pixels else np.empty((0, *self.shape), dtype=np.uint8)

    def sizes(self, rows: Sequence[int]) -> list[tuple[int, int]]:
        """Return width and height as the files declare them."""
        return [size_of(self.root / file, self.decoder.max_pixels) for file in self.files[rows]]

    def name(self, row: int) -> str:
        """Return the file's path below the data set's root."""
        return str(self.files[row])

    def content(self) -> Iterator[Any]:
        """Yield how files are decoded, their names and classes, and a SHA-256 of each."""
        yield f"{self.decoder.shape} {self.class_names}".encode()
        yield "\0".join(self.files).encode(errors="surrogateescape")
        yield from (np.ascontiguousarray(array).data for array in (self.labels, self.places))
        yield "".join(digests(self.root, self.files.tolist())).encode()
