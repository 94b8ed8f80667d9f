"""What is found of two settings: scores with their intervals, p-values, classes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from microstep.evaluation.comparison.bootstrap import UniqueSamples, bootstrap_differences
from microstep.evaluation.comparison.paired import Array, ClassScores, PairedPredictions
from microstep.evaluation.comparison.significance import (
    POWER,
    SeedSampleVariance,
    correct_holm,
    find_smallest_difference,
    mcnemar_p_value,
)

SIGNIFICANCE_LEVEL = 0.05
RESAMPLES = 10_000  #: for the ends of an interval
COVARIANCE_RESAMPLES = 2_000  #: for a covariance, which needs fewer


@dataclass(frozen=True)
class ScoreComparison:
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
class ClassComparison:
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
class ComparisonResult:
    """All that is found of one pair of settings. Make it with `of`."""

    paired: PairedPredictions
    accuracy: ScoreComparison
    macro_f1: ScoreComparison
    p_value: float  #: one seed: McNemar's exact test; several: that of the interval over seeds and samples

    @classmethod
    def of(cls, paired: PairedPredictions) -> ComparisonResult:
        """Return the figures: over samples, and over seeds and samples where there are several seeds."""
        scores = compute_seed_scores(paired)
        accuracy, macro_f1 = ([[getattr(one, name)[0] for one in side] for side in scores] for name in SCORE_NAMES)
        intervals = (
            sample_intervals(paired)
            if paired.seeds == 1
            else seed_and_sample_intervals(paired, np.subtract(*np.array(macro_f1)))
        )
        return cls(
            paired,
            summarize_score(accuracy, intervals[0]),
            summarize_score(macro_f1, intervals[1]),
            compute_p_value(paired),
        )

    @property
    def by_seed(self) -> list[tuple[int, int, float]]:
        """Each seed's samples that only the run gets right, only the baseline, and the exact test's p-value."""
        counts = zip(self.paired.only_run.tolist(), self.paired.only_baseline.tolist(), strict=True)
        return [(run, baseline, mcnemar_p_value(run, baseline)) for run, baseline in counts]

    @cached_property
    def classes(self) -> list[ClassComparison]:
        """The classes that have samples, in order."""
        return compare_classes(self.paired)

    def smallest_difference(self, comparisons: int) -> float | None:
        """Return the least true difference in accuracy that would show in four of five such comparisons.

        Args:
            comparisons: made together: each is then held to a stricter level, Bonferroni's, which is Holm's first.
        """
        level = SIGNIFICANCE_LEVEL / comparisons
        if self.paired.seeds > 1:
            return SeedSampleVariance.of_means(self.paired.differences).smallest_difference(level, POWER)
        return find_smallest_difference(self.paired.samples, self.paired.disagreement, level)


SCORE_NAMES = ("accuracy", "macro_f1")
IntervalEnds = tuple[float, float]


def compute_seed_scores(paired: PairedPredictions) -> list[list[ClassScores]]:
    """Return the scores of run and baseline, a seed each."""
    counts = np.ones((1, paired.samples), np.int64)
    sides = (paired.run, paired.baseline)
    return [[ClassScores.of(counts, paired.labels, answers, paired.classes) for answers in side] for side in sides]


def summarize_score(values: list[list[float]], ends: IntervalEnds) -> ScoreComparison:
    """Return a score's mean over seeds on both sides."""
    run, baseline = (float(np.mean(side)) for side in values)
    return ScoreComparison(run, baseline, run - baseline, *ends)


def sample_intervals(paired: PairedPredictions) -> list[IntervalEnds]:
    """Return the ends of both intervals of one seed: quantiles of the paired bootstrap."""
    found = bootstrap_differences(UniqueSamples.of(paired).smoothed(), paired.samples, RESAMPLES)
    return [central_interval(values[:, 0]) for values in found]


def central_interval(values: Array) -> IntervalEnds:
    """Return the ends between which 95 % of the values lie."""
    low, high = np.quantile(values, [SIGNIFICANCE_LEVEL / 2, 1 - SIGNIFICANCE_LEVEL / 2])
    return float(low), float(high)


def seed_and_sample_intervals(paired: PairedPredictions, macro_f1: Array) -> list[IntervalEnds]:
    """Return the ends of both intervals over seeds and samples; `macro_f1` are the seeds' differences."""
    _, found = bootstrap_differences(UniqueSamples.of(paired), paired.samples, COVARIANCE_RESAMPLES)
    f1 = SeedSampleVariance.of(macro_f1, np.cov(found, rowvar=False), paired.samples)
    return [
        SeedSampleVariance.of_means(paired.differences).interval(SIGNIFICANCE_LEVEL),
        f1.interval(SIGNIFICANCE_LEVEL),
    ]


def compute_p_value(paired: PairedPredictions) -> float:
    """Return the p-value of equal accuracies."""
    if paired.seeds == 1:
        return mcnemar_p_value(int(paired.only_run[0]), int(paired.only_baseline[0]))
    return SeedSampleVariance.of_means(paired.differences).p_value() if paired.samples > 1 else 1.0


def compare_classes(paired: PairedPredictions) -> list[ClassComparison]:
    """Return the classes that have samples; Holm's correction is for their number."""
    known = np.unique(paired.labels).tolist()
    each = [paired.of_class(label) for label in known]
    p_values = correct_holm([compute_p_value(one) for one in each])
    sides = compute_seed_scores(paired)
    recall, f1 = (
        np.array([[getattr(s, name)[0] for s in side] for side in sides]).mean(1) for name in ("recall", "f1")
    )
    counts = [(float(one.only_run.mean()), float(one.only_baseline.mean())) for one in each]
    return [
        ClassComparison(label, one.samples, get_class_values(recall, label), get_class_values(f1, label), *count, p)
        for label, one, count, p in zip(known, each, counts, p_values, strict=True)
    ]


def get_class_values(values: Array, label: int) -> tuple[float, float]:
    """Return a class's value on both sides."""
    return float(values[0, label]), float(values[1, label])
