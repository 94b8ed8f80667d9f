"""What is kept of pictures that go by: what adds up over them, and a few bytes each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from hashlib import blake2b
from operator import add

import numpy as np

from microstep.components.dataset.images import Pictures
from microstep.components.dataset.statistics import Sums, class_counts, class_totals, pieces
from microstep.errors import DataError
from microstep.stats.sampling import moments

DIGEST = 16  #: bytes: among a thousand million pictures two are taken for the same with a chance of 1 to 10 ** 20


@dataclass(frozen=True)
class Chunk:
    """Some pictures of a split, with their rows."""

    rows: Sequence[int]
    pixels: np.ndarray  #: N × C × H × W, uint8

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Tally:
    """What adds up over pictures, exactly, in whatever order."""

    count: int  #: pictures
    channels: list[Sums]
    class_counts: np.ndarray  #: pictures of each class
    class_totals: np.ndarray  #: classes × C: sums of pixels
    sizes: Counter[tuple[int, int]]  #: how many pictures were published in each width and height

    @classmethod
    def of(cls, chunk: Chunk, pictures: Pictures) -> Tally:
        """Return what some pictures of a split add."""
        labels, classes = pictures.labels[chunk.rows], len(pictures.class_names)
        counts, totals = class_counts(labels, len(chunk), classes), class_totals(chunk.pixels, labels, classes)
        return cls(len(chunk), summed(chunk.pixels), counts, totals, Counter(sizes_of(pictures, chunk.rows)))

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.count + other.count,
            [one + more for one, more in zip(self.channels, other.channels, strict=True)],
            self.class_counts + other.class_counts,
            self.class_totals + other.class_totals,
            self.sizes + other.sizes,
        )


def summed(pixels: np.ndarray) -> list[Sums]:
    """Return the sums of each channel."""
    channels = ([Sums.of(piece[:, channel]) for piece in pieces(pixels)] for channel in range(pixels.shape[1]))
    return [reduce(add, parts) for parts in channels]


def sizes_of(pictures: Pictures, rows: Sequence[int]) -> list[tuple[int, int]]:
    """Return the published sizes, but of those whose files have gone since they were decoded."""
    with suppress(DataError):
        return pictures.sizes(rows)
    return [size for row in rows for size in sizes_of(pictures, [row])] if len(rows) > 1 else []


@dataclass(frozen=True)
class Marks:
    """What is kept of every picture: some bytes each."""

    rows: np.ndarray
    digests: np.ndarray  #: N × 2, uint64: of the pixels
    constant: np.ndarray  #: whether each channel is the same everywhere
    moments: np.ndarray  #: N × 2 × C of a sample, see sampling.py; empty where all pictures are read

    @classmethod
    def of(cls, chunk: Chunk, scale: float, sampled: bool) -> Marks:
        """Return what is kept of some pictures."""
        pixels = np.ascontiguousarray(chunk.pixels)
        digests = b"".join(blake2b(picture.data, digest_size=DIGEST).digest() for picture in pixels)
        constant = (pixels == pixels[:, :, :1, :1]).all((1, 2, 3))
        kept = moments(pixels if sampled else pixels[:0], scale)
        return cls(np.array(chunk.rows), np.frombuffer(digests, np.uint64).reshape(-1, 2), constant, kept)

    @classmethod
    def joined(cls, parts: Sequence[Marks]) -> Marks:
        """Return the marks of all pictures, by row."""
        rows, digests, constant, kept = (
            np.concatenate([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__
        )
        order = np.argsort(rows)
        return cls(rows[order], digests[order], constant[order], kept)
