"""Exact statistics of pictures in one streaming pass, by channel and by class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod, sqrt
from typing import Any

import numpy as np

CHUNK_IMAGES = 4096  #: pictures held at once while streaming
PIECE_PIXELS = (
    2**16
)  #: pixels of a channel worked on at once: as floats they stay in the cache, and malloc keeps their pages
ROW_BYTES = 256  #: bytes whose squares are summed in float32
EMPTY_STREAM_REASON = "there is nothing to take statistics of: the stream has no pixels"


@dataclass(frozen=True)
class ChannelStatistics:
    """Mean, population standard deviation and range of each channel over all pixels of all pictures.

    Averaging the deviations of pictures or of batches, as tutorials do, gives a smaller number: it leaves out how much
    pictures differ from one another.
    """

    mean: list[float]
    std: list[float]
    count: int  #: pictures
    minimum: list[float]
    maximum: list[float]

    @classmethod
    def streamed(cls, arrays: Iterable[np.ndarray], scale: float) -> ChannelStatistics:
        """Return the statistics of a stream of arrays (N × C × H × W), over `scale`, in one pass and constant memory.

        Of bytes (uint8) they are exact: whole numbers are summed, in which nothing overflows or cancels, and how the
        stream is cut makes no difference. Of other numbers mean and squared deviations from it are found in float64
        and merged, which is stable however far the mean is from zero; cuts move the last digits.

        Raises:
            ValueError: where the stream has no pixels, or pictures of differing numbers of channels.
            TypeError: where bytes and other numbers come in one stream.
        """
        count = 0
        channels: list[Any] = []
        for part in arrays:
            count += len(part)
            for piece in split_pieces(part):
                found = sum_channels(piece)
                channels = [one + more for one, more in zip(channels, found, strict=True)] if channels else found
        if not channels:
            raise ValueError(EMPTY_STREAM_REASON)
        return cls.of(channels, count, scale)

    @classmethod
    def of(
        cls, channels: Sequence[ExactSums] | Sequence[RunningMoments], count: int, scale: float
    ) -> ChannelStatistics:
        """Return the statistics of `count` pictures from what all of them add up to, by channel."""
        columns = zip(*((one.mean, one.std, one.minimum, one.maximum) for one in channels), strict=True)
        mean, std, minimum, maximum = ([value / scale for value in column] for column in columns)
        return cls(mean, std, count, minimum, maximum)


def split_pieces(images: np.ndarray) -> Iterator[np.ndarray]:
    """Yield a part in pieces of at most `PIECE` pixels a channel, or of one picture; nothing where it has no pixels."""
    return iter_chunks(images, max(1, PIECE_PIXELS // prod(images.shape[2:]))) if images.size else iter(())


def sum_channels(piece: np.ndarray) -> list[ExactSums] | list[RunningMoments]:
    """Return what each channel adds to the statistics."""
    channels = (piece[:, channel] for channel in range(piece.shape[1]))
    if piece.dtype == np.uint8:
        return [ExactSums.of(pixels) for pixels in channels]
    return [RunningMoments.of(pixels) for pixels in channels]


@dataclass(frozen=True)
class ExactSums:
    """The bytes of one channel, summed exactly."""

    count: int  #: pixels
    total: int
    squares: int
    minimum: int
    maximum: int

    @classmethod
    def of(cls, pixels: np.ndarray) -> ExactSums:
        """Return the sums of uint8 pixels of any shape.

        Float32 holds every whole number up to 2 ** 24, which the squares of 256 bytes don't reach: summed in rows of
        as many, in whatever order, nothing is rounded. That takes half the time of a histogram, the same for any
        picture, and one thread: where other programs keep the cores busy, waiting for a second one can take seconds.
        """
        wide = np.zeros(-(-pixels.size // ROW_BYTES) * ROW_BYTES, np.float32)  # zeros fill the last row up
        wide[: pixels.size] = pixels.reshape(-1)
        rows = wide.reshape(-1, ROW_BYTES)
        totals, squares = np.einsum("rp->r", rows), np.einsum("rp,rp->r", rows, rows)
        return cls(pixels.size, sum_exactly(totals), sum_exactly(squares), int(pixels.min()), int(pixels.max()))

    def __add__(self, other: ExactSums) -> ExactSums:
        if not isinstance(other, ExactSums):
            return NotImplemented
        return ExactSums(
            self.count + other.count,
            self.total + other.total,
            self.squares + other.squares,
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
        )

    @property
    def mean(self) -> float:
        """Return the mean: one division, rounded once."""
        return self.total / self.count

    @property
    def std(self) -> float:
        """Return the population deviation; the difference, in which floats would cancel, is one of whole numbers."""
        return sqrt((self.count * self.squares - self.total**2) / self.count**2)


def sum_exactly(sums: np.ndarray) -> int:
    """Return the sum of rows' sums, a whole number too."""
    return int(sums.sum(dtype=np.float64))


@dataclass(frozen=True)
class RunningMoments:
    """The numbers of one channel: their mean, and squared deviations from it.

    Chan, Golub and LeVeque, Algorithms for Computing the Sample Variance (The American Statistician 37, 1983).
    """

    count: int  #: pixels
    mean: float
    squares: float  #: the sum of squared deviations
    minimum: float
    maximum: float

    @classmethod
    def of(cls, pixels: np.ndarray) -> RunningMoments:
        """Return those of pixels of any shape and dtype, in two passes over a float64 copy."""
        flat = pixels.astype(np.float64).reshape(-1)
        mean = flat.mean()
        squares = np.square(flat - mean).sum()
        return cls(flat.size, float(mean), float(squares), float(flat.min()), float(flat.max()))

    def __add__(self, other: RunningMoments) -> RunningMoments:
        if not isinstance(other, RunningMoments):
            return NotImplemented
        count = self.count + other.count
        mean_difference = other.mean - self.mean
        return RunningMoments(
            count,
            self.mean + mean_difference * (other.count / count),
            self.squares + other.squares + mean_difference * mean_difference * (self.count * other.count / count),
            float(np.minimum(self.minimum, other.minimum)),  # a NaN stays, wherever the stream is cut
            float(np.maximum(self.maximum, other.maximum)),
        )

    @property
    def std(self) -> float:
        return sqrt(self.squares / self.count)


def iter_chunks(pixels: np.ndarray, size: int = CHUNK_IMAGES) -> Iterator[np.ndarray]:
    """Yield consecutive parts."""
    return (pixels[start : start + size] for start in range(0, len(pixels), size))
