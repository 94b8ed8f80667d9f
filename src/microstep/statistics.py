"""Exact per-channel mean and standard deviation in one streaming pass; of a sample, with standard errors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

CHUNK = 4096  #: pictures held at once while streaming


@dataclass(frozen=True)
class ChannelStatistics:
    """Mean and population standard deviation of each channel over all pixels of all pictures.

    Averaging the deviations of pictures or of batches, as tutorials do, gives a smaller number: it leaves out how much
    pictures differ from one another.
    """

    mean: list[float]
    std: list[float]
    count: int  #: pictures

    @classmethod
    def streamed(cls, parts: Iterable[np.ndarray], scale: float) -> ChannelStatistics:
        """Return the statistics of a stream of uint8 arrays (N × C × H × W), over `scale`, in constant memory.

        A byte has 256 values: counting them is exact, in whole numbers, and no sum can overflow or cancel.
        """
        histogram: Any = 0
        count = 0
        for part in parts:
            histogram = histogram + histograms(part)
            count += len(part)
        mean, std = moments(histogram)
        return cls((mean / scale).tolist(), (std / scale).tolist(), count)


def histograms(pixels: np.ndarray) -> np.ndarray:
    """Return how often each byte occurs in each channel: C × 256, int64."""
    return np.stack([np.bincount(pixels[:, c].reshape(-1), minlength=256) for c in range(pixels.shape[1])])


def moments(histogram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each channel's mean and population deviation, float64, in units of a byte."""
    values = np.arange(256, dtype=np.float64)
    total = histogram.sum(1)
    mean = histogram @ values / total
    variance = (histogram * (values - mean[:, None]) ** 2).sum(1) / total
    return mean, np.sqrt(variance)


@dataclass(frozen=True)
class StandardErrors:
    """How far a sample's mean and deviation may be from the whole set's: one standard error each, per channel."""

    mean: list[float]
    std: list[float]

    @classmethod
    def of(
        cls, parts: Iterable[np.ndarray], scale: float, statistics: ChannelStatistics, population: int
    ) -> StandardErrors:
        """Return the errors of statistics made from these pictures, drawn without replacement from `population`.

        A picture is drawn whole, so its pixels are one observation, not many: the delta method over pictures, with
        the finite population correction (Cochran, Sampling Techniques, 1977, chapter 2).
        """
        mean, std = np.array(statistics.mean), np.array(statistics.std)
        influence = np.concatenate([influences(part / scale, mean, std) for part in parts])
        left = 1 - statistics.count / population
        error = (
            influence.std(0, ddof=1) * np.sqrt(left / statistics.count)
            if statistics.count > 1
            else influence[0] * np.nan
        )
        return cls(error[0].tolist(), error[1].tolist())


def influences(pictures: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Return each picture's pull on the mean and on the deviation: N × 2 × C."""
    centred = pictures - mean[:, None, None]
    spread = ((centred**2).mean((2, 3)) - std**2) / (2 * np.where(std > 0, std, 1))
    return np.stack([centred.mean((2, 3)), spread], axis=1)


def chunks(pixels: np.ndarray, size: int = CHUNK) -> Iterator[np.ndarray]:
    """Yield consecutive parts."""
    return (pixels[start : start + size] for start in range(0, len(pixels), size))
