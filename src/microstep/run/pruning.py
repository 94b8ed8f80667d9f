"""Ends a run of a search early if earlier runs were better at the same epoch."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from statistics import median
from typing import Self

import numpy as np

from microstep.run.saved_run import SavedRun

MIN_RUNS = 5  #: finished runs of earlier generations without which none is pruned


@dataclass(frozen=True)
class MedianRule:
    """Prunes a run whose best value so far is below the median of earlier runs after the same epoch.

    Golovin et al., Google Vizier: A Service for Black-Box Optimization (KDD 2017), compare the same way. The first
    epoch prunes none, and neither does an epoch that fewer than `MIN_RUNS` of the runs have reached.
    """

    medians: tuple[float, ...]  #: by epoch, of the best values so far, times `sign`
    sign: int  #: −1 if lower is better, else 1

    @classmethod
    def of(cls, runs: Sequence[SavedRun], monitor: tuple[str, str]) -> Self:
        """Return the rule that the finished runs of earlier generations make."""
        reached = zip_longest(*(best_so_far(run, *monitor) for run in runs))
        values = [[value for value in row if value is not None] for row in reached]
        return cls(tuple(median(row) for row in values if len(row) >= MIN_RUNS), 1 if monitor[1] == "max" else -1)

    def __call__(self, epoch: int, best: float) -> str | None:
        """Return why a run ends after an epoch; None if it goes on."""
        if not (1 < epoch <= len(self.medians) and best < self.medians[epoch - 1]):  # none is pruned if one is NaN
            return None
        value, median_then = self.sign * best, self.sign * self.medians[epoch - 1]
        return f"pruned after epoch {epoch}: {value:.4g}, and the median of earlier runs was {median_then:.4g}"


def best_so_far(run: SavedRun, name: str, direction: str) -> list[float]:
    """Return the best value of a validation metric up to each epoch, negated if lower is better."""
    sign = 1 if direction == "max" else -1
    values = [sign * row.get(f"val_{name}", np.nan) for row in run.epochs]
    return [float(best) for best in np.fmax.accumulate(values)]  # a NaN is worse than any other
