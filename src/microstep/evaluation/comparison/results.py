"""Results of a comparison: scores with confidence intervals, p-values, and scores of each class."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from microstep.evaluation.comparison import significance
from microstep.evaluation.comparison.bootstrap import UniqueSamples, bootstrap_differences
from microstep.evaluation.comparison.paired import Array, ClassScores, PairedPredictions
from microstep.evaluation.comparison.significance import POWER, SeedSampleVariance

SIGNIFICANCE_LEVEL = 0.05
RESAMPLES = 10_000  #: for the ends of an interval
COVARIANCE_RESAMPLES = 2_000  #: for a covariance, which needs fewer
IntervalEnds = tuple[float, float]


@dataclass(frozen=True)
class ScoreComparison:
    """A score of run and baseline, averaged over seeds, and the 95 % interval of the difference."""

    run: float
    baseline: float
    difference: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class ClassComparison:
    """Scores on the samples of one class, averaged over seeds."""

    label: int
    samples: int
    recall: tuple[float, float]  #: of run and baseline
    f1: tuple[float, float]
    only_run: float  #: samples that only the run gets right
    only_baseline: float
    p_value: float  #: for equal recall, corrected for the number of classes

    @property
    def difference(self) -> float:
        """Difference in recall, which is the accuracy within the class."""
        return self.recall[0] - self.recall[1]


@dataclass(frozen=True)
class ComparisonResult:
    """Statistics of one pair of groups."""

    paired: PairedPredictions
    accuracy: ScoreComparison
    macro_f1: ScoreComparison
    p_value: float  #: one seed: McNemar's exact test; several: consistent with the interval over seeds and samples

    @classmethod
    def from_predictions(cls, paired: PairedPredictions) -> "ComparisonResult":
        """Return the statistics over samples, or over seeds and samples if there are several seeds."""
        scores = compute_seed_scores(paired)
        accuracy, macro_f1 = (stack_scores(scores, name) for name in ("accuracy", "macro_f1"))
        several, differences = paired.seeds > 1, macro_f1[0] - macro_f1[1]
        intervals = seed_and_sample_intervals(paired, differences) if several else sample_intervals(paired)
        means = (score.mean(1).tolist() for score in (accuracy, macro_f1))
        compared = [ScoreComparison(a, b, a - b, *ends) for (a, b), ends in zip(means, intervals, strict=True)]
        return cls(paired, compared[0], compared[1], compute_p_value(paired))

    @property
    def by_seed(self) -> list[tuple[int, int, float]]:
        """For each seed: the samples that only the run gets right, only the baseline, and McNemar's p-value."""
        discordant = self.paired.discordant.tolist()
        return [(run, baseline, significance.mcnemar_p_value(run, baseline)) for run, baseline in discordant]

    @cached_property
    def classes(self) -> list[ClassComparison]:
        return compare_classes(self.paired)

    def smallest_difference(self, comparisons: int) -> float | None:
        """Return the smallest true difference that 4 of 5 such comparisons detect of `comparisons` made together."""
        level = SIGNIFICANCE_LEVEL / comparisons  # Bonferroni's level, the first step of Holm's
        if self.paired.seeds > 1:
            return SeedSampleVariance.from_values(self.paired.differences).smallest_difference(level, POWER)
        return significance.find_smallest_difference(self.paired.samples, self.paired.disagreement, level)


def compute_seed_scores(paired: PairedPredictions) -> list[list[ClassScores]]:
    counts = np.ones((1, paired.samples), np.int64)
    sides = (paired.run, paired.baseline)
    return [[ClassScores.from_counts(counts, paired.labels, row, paired.classes) for row in side] for side in sides]


def stack_scores(scores: list[list[ClassScores]], name: str) -> Array:
    """Return one score of both sides and all seeds: 2 × S, or 2 × S × classes for recall and F1."""
    return np.array([[getattr(one, name)[0] for one in side] for side in scores])


def sample_intervals(paired: PairedPredictions) -> list[IntervalEnds]:
    """Return the intervals of accuracy and macro F1 for one seed: quantiles of the paired bootstrap."""
    unique = UniqueSamples.from_predictions(paired).add_pseudo_samples()
    return [central_interval(values[:, 0]) for values in bootstrap_differences(unique, paired.samples, RESAMPLES)]


def central_interval(values: Array) -> IntervalEnds:
    low, high = np.quantile(values, [SIGNIFICANCE_LEVEL / 2, 1 - SIGNIFICANCE_LEVEL / 2])
    return float(low), float(high)


def seed_and_sample_intervals(paired: PairedPredictions, macro_f1: Array) -> list[IntervalEnds]:
    """Return the intervals of accuracy and macro F1 over seeds and samples; `macro_f1` has the S differences."""
    unique = UniqueSamples.from_predictions(paired)
    _, resampled = bootstrap_differences(unique, paired.samples, COVARIANCE_RESAMPLES)
    accuracy = SeedSampleVariance.from_values(paired.differences)
    f1 = SeedSampleVariance.from_covariance(macro_f1, np.cov(resampled, rowvar=False), paired.samples)
    return [accuracy.interval(SIGNIFICANCE_LEVEL), f1.interval(SIGNIFICANCE_LEVEL)]


def compute_p_value(paired: PairedPredictions) -> float:
    if paired.seeds == 1:
        return significance.mcnemar_p_value(*map(int, paired.discordant[0]))
    return SeedSampleVariance.from_values(paired.differences).p_value() if paired.samples > 1 else 1.0


def compare_classes(paired: PairedPredictions) -> list[ClassComparison]:
    """Return the results of the classes that have samples, with p-values corrected for their number."""
    labels = np.unique(paired.labels).tolist()
    parts = [paired.select_class(label) for label in labels]
    p_values = significance.correct_holm([compute_p_value(part) for part in parts])
    scores = compute_seed_scores(paired)
    recall, f1 = (stack_scores(scores, name).mean(1).T.tolist() for name in ("recall", "f1"))
    counts = [part.discordant.mean(0).tolist() for part in parts]
    return [
        ClassComparison(label, part.samples, tuple(recall[label]), tuple(f1[label]), only_run, only_baseline, p)
        for label, part, (only_run, only_baseline), p in zip(labels, parts, counts, p_values, strict=True)
    ]
