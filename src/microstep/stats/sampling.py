"""What a random sample of pictures is worth: standard errors, from two numbers that are kept of each picture drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from microstep.components.dataset.statistics import ChannelStatistics


@dataclass(frozen=True)
class StandardErrors:
    """How far a sample's mean and deviation may be from the whole set's: one standard error each, per channel."""

    mean: list[float]
    std: list[float]


@dataclass(frozen=True)
class Stratum:
    """The pictures drawn from one split."""

    moments: np.ndarray  #: N × 2 × C: each picture's mean, and the mean of its squares
    population: int  #: that they were drawn from


def moments(pictures: np.ndarray, scale: float) -> np.ndarray:
    """Return each picture's mean over `scale`, and that of its squares, by channel: N × 2 × C from N × C × H × W."""
    numbers = pictures / scale
    return np.stack([numbers.mean((2, 3)), np.square(numbers).mean((2, 3))], axis=1)


def standard_errors(strata: Sequence[Stratum], statistics: ChannelStatistics) -> StandardErrors:
    """Return the errors of statistics made from pictures drawn without replacement, so many from each split.

    A picture is drawn whole, so its pixels are one observation, not many: the delta method over pictures, with the
    finite population correction of each split (Cochran, Sampling Techniques, 1977, chapters 2 and 5). Of one picture
    it is NaN.
    """
    mean, std = np.array(statistics.mean), np.array(statistics.std)
    variance = sum(own_variance(one, mean, std) * (len(one.moments) / statistics.count) ** 2 for one in strata)
    errors = np.sqrt(variance)
    return StandardErrors(errors[0].tolist(), errors[1].tolist())


def own_variance(drawn: Stratum, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Return the variance, 2 × C, of the mean pull of pictures drawn from one split."""
    count = len(drawn.moments)
    if count < 2:
        return np.full(drawn.moments.shape[1:], np.nan)
    own: np.ndarray = pulls(drawn.moments, mean, std).var(0, ddof=1)
    return own * (1 - count / drawn.population) / count


def pulls(moments: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Return each picture's pull on the mean and on the deviation: N × 2 × C."""
    first, second = moments[:, 0], moments[:, 1]
    spread = second - 2 * mean * first + mean**2 - std**2
    return np.stack([first - mean, spread / (2 * np.where(std > 0, std, 1))], axis=1)
