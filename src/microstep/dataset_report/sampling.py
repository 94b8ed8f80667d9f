"""Statistics by class, and the standard errors of statistics of a sample of images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from microstep.components.dataset.image_dataset import ImageDataset
from microstep.components.dataset.statistics import ChannelStatistics


@dataclass(frozen=True)
class StandardErrors:
    """Standard errors of a sample's mean and standard deviation, by channel."""

    mean: list[float]
    std: list[float]


@dataclass(frozen=True)
class Stratum:
    """The images drawn from one split."""

    moments: np.ndarray  #: N × 2 × C: mean and mean square of each image
    population: int  #: number of images in the split


def compute_moments(images: np.ndarray, scale: float) -> np.ndarray:
    """Return mean and mean square of each image divided by `scale`: N × 2 × C from N × C × H × W."""
    numbers = images / scale
    return np.stack([numbers.mean((2, 3)), np.square(numbers).mean((2, 3))], axis=1)


def compute_standard_errors(strata: Sequence[Stratum], statistics: ChannelStatistics) -> StandardErrors:
    """Return the standard errors of statistics of images drawn without replacement from each split.

    An image is one observation, whatever its number of pixels. The errors are those of the delta method over images,
    with the finite population correction of each split (Cochran, Sampling Techniques, 1977, chapters 2 and 5). They are
    NaN if a split has only one image.
    """
    mean, std = np.array(statistics.mean), np.array(statistics.std)
    variance = sum(stratum_variance(one, mean, std) * (len(one.moments) / statistics.count) ** 2 for one in strata)
    errors = np.sqrt(variance)
    return StandardErrors(errors[0].tolist(), errors[1].tolist())


def stratum_variance(drawn: Stratum, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Return the variance, 2 × C, of the mean influence of the images drawn from one split."""
    count, first, second = len(drawn.moments), drawn.moments[:, 0], drawn.moments[:, 1]
    if count < 2:
        return np.full(drawn.moments.shape[1:], np.nan)
    spread = second - 2 * mean * first + mean**2 - std**2
    influences = np.stack([first - mean, spread / (2 * np.where(std > 0, std, 1))], axis=1)
    variance: np.ndarray = influences.var(0, ddof=1)
    return variance * (1 - count / drawn.population) / count


@dataclass(frozen=True)
class ClassStatistics:
    """The number of images of each class, and the mean of their pixels by channel."""

    counts: list[int]
    means: list[list[float] | None]  #: by class, then channel; None for a class without images

    @classmethod
    def of(cls, counts: np.ndarray, areas: np.ndarray, totals: np.ndarray, scale: float) -> "ClassStatistics":
        """Return the statistics from images and pixels by class, and sums of pixels (classes × C)."""
        means = zip(totals.tolist(), areas.tolist(), strict=True)
        return cls(counts.tolist(), [[t / area / scale for t in total] if area else None for total, area in means])


def list_memberships(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and classes of N class numbers, or of N × C labels: an image may have several, or none."""
    if labels.ndim == 1:
        return np.arange(len(labels)), labels
    rows, classes = np.nonzero(labels == 1)
    return rows, classes


def group_numbers(dataset: ImageDataset) -> ImageDataset:
    """Return a data set of numbers (of several the first) with ten equal parts of its first split as classes."""
    splits = dataset.official_splits
    columns = {name: source.labels.reshape(len(source), -1)[:, 0] for name, source in splits.items()}
    first = next(iter(splits.values())).labels
    if np.issubdtype(first.dtype, np.integer) or (first.ndim == 2 and np.isin(first[~np.isnan(first)], (0, 1)).all()):
        return dataset
    borders = np.unique(np.nanquantile(next(iter(columns.values())), np.linspace(0, 1, 11), method="nearest"))
    names = tuple(f"{low:.4g} to {high:.4g}" for low, high in pairwise(borders)) or (f"{borders[0]:.4g}",)
    tenths = {name: np.searchsorted(borders[1:-1], values, side="right") for name, values in columns.items()}
    sources: dict[str, Any] = dict(splits)
    classes = {name: replace(source, labels=tenths[name], class_names=names) for name, source in sources.items()}
    return replace(dataset, official_splits=classes)


def count_labels(labels: np.ndarray, images: int, classes: int) -> np.ndarray:
    """Return the number of images of each class, int64. Raise a ValueError for invalid labels."""
    if labels.shape not in ((images,), (images, classes)):
        raise ValueError(f"labels of shape {labels.shape} for {images} images: give each image one label")
    labels = list_memberships(labels)[1]
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(f"labels from {labels.min()} to {labels.max()}: they go from 0 to {classes - 1}")
    return np.bincount(labels, minlength=classes)


def sum_by_class(images: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Return the sums of pixels by class and channel: classes × C, int64 for integers, else float64."""
    dtype = np.int64 if np.issubdtype(images.dtype, np.integer) else np.float64
    totals = np.zeros((classes, images.shape[1]), dtype)
    rows, classes_of_rows = list_memberships(labels)
    np.add.at(totals, classes_of_rows, images.sum((2, 3), dtype=dtype)[rows])
    return totals
