"""The predictions of two settings for the same samples, seed by seed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Paired:
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

    def of_class(self, label: int) -> Paired:
        """Return the samples of one class."""
        chosen = self.labels == label
        return Paired(self.labels[chosen], self.run[:, chosen], self.baseline[:, chosen], self.classes)
