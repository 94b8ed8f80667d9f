"""Paired predictions of two groups of runs, and their scores per sample."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.sparse import csr_array


@dataclass(frozen=True)
class ClassScores:
    """How often each class is there, predicted, and predicted rightly: B × classes each, B weightings."""

    present: Array
    predicted: Array
    right: Array

    @classmethod
    def of(cls, counts: Array, labels: Array, predictions: Array, classes: int) -> ClassScores:
        """Return the scores of samples that count more than once.

        Args:
            counts: B × C: how often each of C samples counts.
            labels, predictions: C; `classes` stands for a prediction of no class at all.
        """
        right = labels == predictions
        present, predicted = (counts @ sparse_one_hot(which, classes) for which in (labels, predictions))
        return cls(present, predicted, counts @ sparse_one_hot(np.where(right, labels, classes), classes))

    @property
    def accuracy(self) -> Array:
        """B: the share of samples that are right."""
        return np.asarray(self.right.sum(1) / self.present.sum(1))

    @property
    def recall(self) -> Array:
        """B × classes: the share of each class's samples that are right; 0 where it has none, as scikit-learn's."""
        return np.asarray(self.right / np.maximum(1, self.present))

    @property
    def f1(self) -> Array:
        """B × classes: 2 · right ÷ (present + predicted); 0 where a class is neither, as scikit-learn's."""
        return np.asarray(2 * self.right / np.maximum(1, self.present + self.predicted))

    @property
    def macro_f1(self) -> Array:
        """B: the mean of all classes' F1."""
        return np.asarray(self.f1.mean(1))


def sparse_one_hot(classes_of_rows: Array, classes: int) -> Any:
    """Return a sparse C × classes matrix with a 1 in each row, none where `classes_of_rows` is `classes`."""
    known = classes_of_rows < classes
    ends = np.concatenate([[0], np.cumsum(known)])
    return csr_array((np.ones(ends[-1], np.int64), classes_of_rows[known], ends), shape=(len(classes_of_rows), classes))


Array = np.ndarray


@dataclass(frozen=True)
class PairedPredictions:
    """What two settings say of the same N samples, each with the same S seeds.

    Args:
        labels: N true classes.
        run, baseline: S × N predicted classes; a row a seed, in the same order.
        classes: how many there are; all of the above lie in 0…classes − 1.
    """

    labels: Array
    run: Array
    baseline: Array
    classes: int

    @property
    def seeds(self) -> int:
        return len(self.run)

    @property
    def samples(self) -> int:
        return len(self.labels)

    @cached_property
    def differences(self) -> Array:
        """S × N: 1 where only the run is right, −1 where only the baseline is, else 0."""
        return np.asarray(np.subtract(self.run == self.labels, self.baseline == self.labels, dtype=np.int8))

    @property
    def only_run(self) -> Array:
        """S: samples that only the run gets right."""
        return np.asarray((self.differences > 0).sum(1))

    @property
    def only_baseline(self) -> Array:
        """S: samples that only the baseline gets right."""
        return np.asarray((self.differences < 0).sum(1))

    @property
    def disagreement(self) -> float:
        """The share of samples that exactly one of the two gets right."""
        return float(np.abs(self.differences).mean())

    def of_class(self, label: int) -> PairedPredictions:
        """Return the samples of one class."""
        chosen = self.labels == label
        return PairedPredictions(self.labels[chosen], self.run[:, chosen], self.baseline[:, chosen], self.classes)
