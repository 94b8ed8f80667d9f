"""Paired predictions of two groups of runs, and scores of weighted samples."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from scipy.sparse import csr_array

Array = np.ndarray


@dataclass(frozen=True)
class Folds:
    """Folds in which paired runs were trained; the same fold with several seeds is one."""

    numbers: Array  #: number of the fold, in 0…J − 1, of each seed (S × 1), or of each prediction (S × N)
    overlap: float  #: validation samples for each training sample

    @property
    def count(self) -> int:
        return len(np.unique(self.numbers))

    @property
    def pooled(self) -> bool:
        """True if the folds have different samples."""
        return bool(self.numbers.shape[1] > 1)

    def average(self, values: Array) -> Array:
        """Return the means of values (S × …) over the seeds of each fold (J × …), or of S × N pooled values: J."""
        numbers = self.numbers if self.pooled else self.numbers[:, 0]
        return np.stack([values[numbers == number].mean(0) for number in np.unique(numbers)])


@dataclass(frozen=True)
class PairedScores:
    """Scores of two groups of runs for the same N samples, each with the same S seeds."""

    run: Array  #: S × N, the higher the better
    baseline: Array  #: S × N, with the seeds in the same order
    name: str
    folds: Folds | None = None  #: None if only the seed differs

    @property
    def seeds(self) -> int:
        return len(self.run)

    @property
    def samples(self) -> int:
        return len(self.run[0])

    @property
    def differences(self) -> Array:
        return np.asarray(self.run - self.baseline)

    @property
    def unit(self) -> float:
        """The largest difference between two scores of a sample; 1 if there is none."""
        return float(np.abs(self.differences).max()) or 1.0


@dataclass(frozen=True)
class PairedPredictions:
    """Predictions of two groups of runs for the same N samples, each with the same S seeds. Their score is accuracy."""

    name: ClassVar[str] = "accuracy"
    unit: ClassVar[float] = 1.0

    labels: Array  #: N true classes, in 0…classes − 1
    run: Array  #: S × N predicted classes, with a row for each seed
    baseline: Array  #: S × N predicted classes, with the seeds in the same order
    classes: int  #: number of classes
    folds: Folds | None = None  #: None if only the seed differs

    @property
    def seeds(self) -> int:
        return len(self.run)

    @property
    def samples(self) -> int:
        return len(self.labels)

    @cached_property
    def differences(self) -> Array:
        """S × N: 1 if only the run is right, −1 if only the baseline is, else 0."""
        return np.asarray(np.subtract(self.run == self.labels, self.baseline == self.labels, dtype=np.int8))

    @property
    def discordant(self) -> Array:
        """S × 2: number of samples that only the run gets right, and that only the baseline gets right."""
        return np.stack([(self.differences > 0).sum(1), (self.differences < 0).sum(1)], 1)

    def select_class(self, label: int) -> "PairedPredictions":
        mask = self.labels == label
        folds = self.folds
        if folds and folds.pooled:
            folds = Folds(folds.numbers[:, mask], folds.overlap)
        return PairedPredictions(self.labels[mask], self.run[:, mask], self.baseline[:, mask], self.classes, folds)


@dataclass(frozen=True)
class ClassScores:
    """Counts of each class for B weightings of the samples: B × classes each."""

    present: Array
    predicted: Array
    correct: Array

    @classmethod
    def from_counts(cls, counts: Array, labels: Array, predictions: Array, classes: int) -> "ClassScores":
        """Return the scores of samples with B × C weights; a prediction equal to `classes` is none of them."""
        hits = np.where(labels == predictions, labels, classes)
        return cls(*(counts @ sparse_one_hot(column, classes) for column in (labels, predictions, hits)))

    @property
    def accuracy(self) -> Array:
        return np.asarray(self.correct.sum(1) / self.present.sum(1))

    @property
    def recall(self) -> Array:
        """B × classes; 0 for a class without samples, as in scikit-learn."""
        return np.asarray(self.correct / np.maximum(1, self.present))

    @property
    def f1(self) -> Array:
        """B × classes: 2 · correct ÷ (present + predicted); 0 for a class that has neither, as in scikit-learn."""
        return np.asarray(2 * self.correct / np.maximum(1, self.present + self.predicted))

    @property
    def macro_f1(self) -> Array:
        """B: mean of F1 over all classes."""
        return np.asarray(self.f1.mean(1))


def sparse_one_hot(labels: Array, classes: int) -> Any:
    """Return a sparse C × classes matrix of one-hot rows; a label equal to `classes` gives a row of zeros."""
    known = labels < classes
    ends = np.concatenate([[0], np.cumsum(known)])
    return csr_array((np.ones(ends[-1], np.int64), labels[known], ends), shape=(len(labels), classes))
