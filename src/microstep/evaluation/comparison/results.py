"""What is found of two settings: scores with their intervals, p-values, classes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from microstep.evaluation.comparison.bootstrap import Cells, resampled
from microstep.evaluation.comparison.paired import Array, Paired, Scores
from microstep.evaluation.comparison.significance import POWER, TwoWay, holm, mcnemar, smallest_difference

LEVEL = 0.05
RESAMPLES = 10_000  #: for the ends of an interval
FEWER = 2_000  #: for a covariance, which needs fewer


@dataclass(frozen=True)
class Score:
    """A score of both, in the mean over seeds; the 95 % interval is that of the difference."""

    run: float
    baseline: float
    difference: float
    low: float
    high: float

    @property
    def leaves_zero_out(self) -> bool:
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class ClassFigures:
    """How the two do on one class, in the mean over seeds."""

    label: int
    samples: int
    recall: tuple[float, float]  #: of run and baseline
    f1: tuple[float, float]
    only_run: float  #: samples that only the run gets right
    only_baseline: float
    p_value: float  #: of the recalls being equal, corrected for the number of classes

    @property
    def difference(self) -> float:
        """In recall, which is the accuracy within the class."""
        return self.recall[0] - self.recall[1]


@dataclass(frozen=True)
class Figures:
    """All that is found of one pair of settings. Make it with `of`."""

    paired: Paired
    accuracy: Score
    macro_f1: Score
    p_value: float  #: one seed: McNemar's exact test; several: that of the interval over seeds and samples

    @classmethod
    def of(cls, paired: Paired) -> Figures:
        """Return the figures: over samples, and over seeds and samples where there are several seeds."""
        scores = each_seed(paired)
        accuracy, macro_f1 = ([[getattr(one, name)[0] for one in side] for side in scores] for name in SCORES)
        intervals = over_samples(paired) if paired.seeds == 1 else over_both(paired, np.subtract(*np.array(macro_f1)))
        return cls(paired, score(accuracy, intervals[0]), score(macro_f1, intervals[1]), p_value(paired))

    @property
    def by_seed(self) -> list[tuple[int, int, float]]:
        """Each seed's samples that only the run gets right, only the baseline, and the exact test's p-value."""
        counts = zip(self.paired.only_run.tolist(), self.paired.only_baseline.tolist(), strict=True)
        return [(run, baseline, mcnemar(run, baseline)) for run, baseline in counts]

    @cached_property
    def classes(self) -> list[ClassFigures]:
        """The classes that have samples, in order."""
        return class_figures(self.paired)

    def smallest_difference(self, comparisons: int) -> float | None:
        """Return the least true difference in accuracy that would show in four of five such comparisons.

        Args:
            comparisons: made together: each is then held to a stricter level, Bonferroni's, which is Holm's first.
        """
        level = LEVEL / comparisons
        if self.paired.seeds > 1:
            return TwoWay.of_means(self.paired.differences).smallest_difference(level, POWER)
        return smallest_difference(self.paired.samples, self.paired.disagreement, level)


SCORES = ("accuracy", "macro_f1")
Ends = tuple[float, float]


def each_seed(paired: Paired) -> list[list[Scores]]:
    """Return the scores of run and baseline, a seed each."""
    counts = np.ones((1, paired.samples), np.int64)
    sides = (paired.run, paired.baseline)
    return [[Scores.of(counts, paired.labels, answers, paired.classes) for answers in side] for side in sides]


def score(values: list[list[float]], ends: Ends) -> Score:
    """Return a score's mean over seeds on both sides."""
    run, baseline = (float(np.mean(side)) for side in values)
    return Score(run, baseline, run - baseline, *ends)


def over_samples(paired: Paired) -> list[Ends]:
    """Return the ends of both intervals of one seed: quantiles of the paired bootstrap."""
    found = resampled(Cells.of(paired).smoothed(), paired.samples, RESAMPLES)
    return [quantiles(values[:, 0]) for values in found]


def quantiles(values: Array) -> Ends:
    """Return the ends between which 95 % of the values lie."""
    low, high = np.quantile(values, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def over_both(paired: Paired, macro_f1: Array) -> list[Ends]:
    """Return the ends of both intervals over seeds and samples; `macro_f1` are the seeds' differences."""
    _, found = resampled(Cells.of(paired), paired.samples, FEWER)
    f1 = TwoWay.of(macro_f1, np.cov(found, rowvar=False), paired.samples)
    return [TwoWay.of_means(paired.differences).interval(LEVEL), f1.interval(LEVEL)]


def p_value(paired: Paired) -> float:
    """Return the p-value of equal accuracies."""
    if paired.seeds == 1:
        return mcnemar(int(paired.only_run[0]), int(paired.only_baseline[0]))
    return TwoWay.of_means(paired.differences).p_value() if paired.samples > 1 else 1.0


def class_figures(paired: Paired) -> list[ClassFigures]:
    """Return the classes that have samples; Holm's correction is for their number."""
    known = np.unique(paired.labels).tolist()
    each = [paired.of_class(label) for label in known]
    p_values = holm([p_value(one) for one in each])
    sides = each_seed(paired)
    recall, f1 = (
        np.array([[getattr(s, name)[0] for s in side] for side in sides]).mean(1) for name in ("recall", "f1")
    )
    counts = [(float(one.only_run.mean()), float(one.only_baseline.mean())) for one in each]
    return [
        ClassFigures(label, one.samples, pair(recall, label), pair(f1, label), *count, p)
        for label, one, count, p in zip(known, each, counts, p_values, strict=True)
    ]


def pair(values: Array, label: int) -> tuple[float, float]:
    """Return a class's value on both sides."""
    return float(values[0, label]), float(values[1, label])
