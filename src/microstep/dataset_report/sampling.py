"""Draws a sample of images and estimates the standard errors of its statistics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from microstep.components.dataset.statistics import EMPTY_STREAM_REASON, ChannelStatistics


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


def compute_moments(images: np.ndarray, scale: float) -> np.ndarray:
    """Return each picture's mean over `scale`, and that of its squares, by channel: N × 2 × C from N × C × H × W."""
    numbers = images / scale
    return np.stack([numbers.mean((2, 3)), np.square(numbers).mean((2, 3))], axis=1)


def compute_standard_errors(strata: Sequence[Stratum], statistics: ChannelStatistics) -> StandardErrors:
    """Return the errors of statistics made from pictures drawn without replacement, so many from each split.

    A picture is drawn whole, so its pixels are one observation, not many: the delta method over pictures, with the
    finite population correction of each split (Cochran, Sampling Techniques, 1977, chapters 2 and 5). Of one picture
    it is NaN.
    """
    mean, std = np.array(statistics.mean), np.array(statistics.std)
    variance = sum(stratum_variance(one, mean, std) * (len(one.moments) / statistics.count) ** 2 for one in strata)
    errors = np.sqrt(variance)
    return StandardErrors(errors[0].tolist(), errors[1].tolist())


def stratum_variance(drawn: Stratum, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Return the variance, 2 × C, of the mean pull of pictures drawn from one split."""
    count = len(drawn.moments)
    if count < 2:
        return np.full(drawn.moments.shape[1:], np.nan)
    own: np.ndarray = compute_influences(drawn.moments, mean, std).var(0, ddof=1)
    return own * (1 - count / drawn.population) / count


def compute_influences(moments: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Return each picture's pull on the mean and on the deviation: N × 2 × C."""
    first, second = moments[:, 0], moments[:, 1]
    spread = second - 2 * mean * first + mean**2 - std**2
    return np.stack([first - mean, spread / (2 * np.where(std > 0, std, 1))], axis=1)


@dataclass(frozen=True)
class ClassStatistics:
    """How many pictures each class has, and each channel's mean over all pixels of these."""

    counts: list[int]
    means: list[list[float] | None]  #: by class, then channel; None for a class without pictures

    @classmethod
    def streamed(cls, arrays: Iterable[tuple[np.ndarray, np.ndarray]], classes: int, scale: float) -> ClassStatistics:
        """Return the figures of a stream of pictures (N × C × H × W), over `scale`, and their labels (N).

        One pass, in constant memory. Sums of integers are exact, so that cuts make no difference; others are float64.

        Raises:
            ValueError: where the stream has no pixels, labels don't match the pictures, or one is no class.
        """
        counts, areas = np.zeros((2, classes), np.int64)
        totals: Any = 0
        for pictures, labels in arrays:
            here = count_labels(labels, len(pictures), classes)
            counts += here
            areas += here * prod(pictures.shape[2:])
            totals = totals + sum_by_class(pictures, labels, classes)
        if not areas.any():
            raise ValueError(EMPTY_STREAM_REASON)
        return cls.of(counts, areas, totals, scale)

    @classmethod
    def of(cls, counts: np.ndarray, areas: np.ndarray, totals: np.ndarray, scale: float) -> ClassStatistics:
        """Return the figures from each class's pictures, pixels of a channel, and sums of pixels (classes × C)."""
        means = zip(totals.tolist(), areas.tolist(), strict=True)
        return cls(counts.tolist(), [[t / area / scale for t in total] if area else None for total, area in means])


def count_labels(labels: np.ndarray, images: int, classes: int) -> np.ndarray:
    """Return how many pictures each class has, int64; labels that are none are refused."""
    if labels.shape != (images,):
        raise ValueError(f"labels of shape {labels.shape} for {images} pictures: give each one")
    if images and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(f"labels from {labels.min()} to {labels.max()}: they go from 0 to {classes - 1}")
    return np.bincount(labels, minlength=classes)


def sum_by_class(images: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Return the sum of each class's pixels by channel: classes × C, int64 for integers, float64 for others."""
    dtype = np.int64 if np.issubdtype(images.dtype, np.integer) else np.float64
    totals = np.zeros((classes, images.shape[1]), dtype)
    np.add.at(totals, labels, images.sum((2, 3), dtype=dtype))
    return totals
