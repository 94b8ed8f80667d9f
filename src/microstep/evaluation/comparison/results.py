"""Results of a comparison: scores with confidence intervals, p-values, and scores of each class."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.stats import norm

from microstep.evaluation.comparison import estimates, significance
from microstep.evaluation.comparison.bootstrap import bootstrap_means
from microstep.evaluation.comparison.estimates import RESAMPLES, SIGNIFICANCE_LEVEL, IntervalEnds, Paired
from microstep.evaluation.comparison.paired import ClassScores, PairedPredictions, PairedScores
from microstep.evaluation.comparison.significance import POWER
from microstep.utils.anytime import anytime_interval


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


@dataclass(frozen=True)
class ComparisonResult:
    """Statistics of one pair of groups."""

    paired: Paired
    score: ScoreComparison  #: which decides; accuracy, if predictions are classes
    macro_f1: ScoreComparison | None  #: None if they are not
    p_value: float  #: one seed: McNemar's exact test, or the bootstrap; several: consistent with the interval

    @classmethod
    def from_paired(cls, paired: Paired) -> "ComparisonResult":
        return cls.from_predictions(paired) if isinstance(paired, PairedPredictions) else cls.from_scores(paired)

    @classmethod
    def from_predictions(cls, paired: PairedPredictions) -> "ComparisonResult":
        """Return the statistics over samples, or over seeds and samples if there are several seeds."""
        accuracy, macro_f1 = (estimates.compute_repeat_scores(paired, name) for name in ("accuracy", "macro_f1"))
        if estimates.is_repeated(paired):
            intervals = estimates.seed_and_sample_intervals(paired, macro_f1[0] - macro_f1[1])
        else:
            intervals = estimates.sample_intervals(paired)
        means = (score.mean(1).tolist() for score in (accuracy, macro_f1))
        compared = [ScoreComparison(a, b, a - b, *ends) for (a, b), ends in zip(means, intervals, strict=True)]
        return cls(paired, compared[0], compared[1], estimates.compute_p_value(paired))

    @classmethod
    def from_scores(cls, paired: PairedScores) -> "ComparisonResult":
        """Return the statistics of scores: by the bootstrap over samples, or over seeds and samples."""
        sides = (paired.run, paired.baseline)
        run, baseline = (float(estimates.get_repeats(paired).average(side).mean()) for side in sides)
        if estimates.is_repeated(paired):
            variance = estimates.estimate_variance(paired)
            (low, high), p_value = variance.interval(SIGNIFICANCE_LEVEL), variance.p_value()
            ends = paired.unit * low, paired.unit * high
        else:
            means = bootstrap_means(paired.differences[0], paired.unit, RESAMPLES)
            tail = min((means <= 0).sum(), (means >= 0).sum())
            ends, p_value = estimates.central_interval(means), min(1.0, 2 * (1 + tail) / (1 + RESAMPLES))
        return cls(paired, ScoreComparison(run, baseline, run - baseline, *ends), None, p_value)

    @property
    def scores(self) -> dict[str, ScoreComparison]:
        """The scores by name; the first decides."""
        return {self.paired.name: self.score, **({"macro F1": self.macro_f1} if self.macro_f1 else {})}

    @property
    def by_seed(self) -> list[tuple[int, int, float]]:
        """For each seed: the samples that only the run gets right, only the baseline, and McNemar's p-value."""
        if isinstance(self.paired, PairedScores):
            return []
        discordant = self.paired.discordant.tolist()
        return [(run, baseline, significance.mcnemar_p_value(run, baseline)) for run, baseline in discordant]

    @property
    def time_uniform_interval(self) -> IntervalEnds | None:
        """Interval of the difference over any number of seeds, for these samples; None for one seed, or folds."""
        if self.paired.seeds == 1 or self.paired.folds:
            return None
        return anytime_interval(self.paired.differences.mean(1), self.paired.unit / self.paired.samples)

    @cached_property
    def classes(self) -> list[ClassComparison]:
        return compare_classes(self.paired) if isinstance(self.paired, PairedPredictions) else []

    def smallest_difference(self, comparisons: int) -> float | None:
        """Return the smallest true difference that 4 of 5 such comparisons detect of `comparisons` made together."""
        level = SIGNIFICANCE_LEVEL / comparisons  # Bonferroni's level, the first step of Holm's
        differences, samples = self.paired.differences, self.paired.samples
        if estimates.is_repeated(self.paired):
            return self.paired.unit * estimates.estimate_variance(self.paired).smallest_difference(level, POWER)
        if isinstance(self.paired, PairedPredictions):
            return significance.find_smallest_difference(samples, float(np.abs(differences).mean()), level)
        padded = np.append(differences, [self.paired.unit, -self.paired.unit])  # like the bootstrap's
        return float((norm.isf(level / 2) + norm.ppf(POWER)) * padded.std(ddof=1) / np.sqrt(samples))


def compare_classes(paired: PairedPredictions) -> list[ClassComparison]:
    """Return the results of the classes that have samples, with p-values corrected for their number."""
    labels = np.unique(paired.labels).tolist()
    parts = [paired.select_class(label) for label in labels]
    p_values = significance.correct_holm([estimates.compute_p_value(part) for part in parts])
    weights, sides = np.ones((1, paired.samples), np.int64), (paired.run, paired.baseline)
    scores = [[ClassScores.from_counts(weights, paired.labels, row, paired.classes) for row in side] for side in sides]
    recall = np.mean([[one.recall[0] for one in side] for side in scores], 1).T.tolist()
    f1 = np.mean([[one.f1[0] for one in side] for side in scores], 1).T.tolist()
    counts = [part.discordant.mean(0).tolist() for part in parts]
    return [
        ClassComparison(label, part.samples, tuple(recall[label]), tuple(f1[label]), only_run, only_baseline, p)
        for label, part, (only_run, only_baseline), p in zip(labels, parts, counts, p_values, strict=True)
    ]
