"""Confidence intervals and p-values of paired predictions and scores."""

import numpy as np

from microstep.evaluation.comparison import significance
from microstep.evaluation.comparison.bootstrap import UniqueSamples, bootstrap_differences
from microstep.evaluation.comparison.paired import Array, ClassScores, Folds, PairedPredictions, PairedScores
from microstep.evaluation.comparison.significance import SeedSampleVariance

SIGNIFICANCE_LEVEL = 0.05
RESAMPLES = 10_000  #: for the ends of an interval
COVARIANCE_RESAMPLES = 2_000  #: for a covariance, which needs fewer
Paired = PairedPredictions | PairedScores
IntervalEnds = tuple[float, float]


def is_repeated(paired: Paired) -> bool:
    """Return True if there are several seeds or folds, so that the interval is over these as well."""
    return paired.seeds > 1 or paired.folds is not None


def get_repeats(paired: Paired) -> Folds:
    """Return the folds; without them, each seed as one, with the same training samples as the others."""
    return paired.folds or Folds(np.arange(paired.seeds)[:, None], 0.0)


def estimate_variance(paired: Paired) -> SeedSampleVariance:
    """Return the variance of the mean difference, in units, over seeds or folds, and the samples that they share."""
    repeats = get_repeats(paired)
    means = repeats.average(paired.differences / paired.unit)
    if repeats.pooled:
        return SeedSampleVariance.from_covariance(means, np.zeros((len(means),) * 2), paired.samples, repeats.overlap)
    return SeedSampleVariance.from_values(means, repeats.overlap)


def compute_repeat_scores(paired: PairedPredictions, name: str) -> Array:
    """Return one score of both sides for each seed, or the mean of each fold: 2 × S, or 2 × J."""
    numbers, sides = get_repeats(paired).numbers, (paired.run, paired.baseline)
    masks = [np.broadcast_to(numbers == number, paired.run.shape) for number in np.unique(numbers)]
    return np.array([[mean_score(paired, side, mask, name) for mask in masks] for side in sides])


def mean_score(paired: PairedPredictions, side: Array, masks: Array, name: str) -> float:
    """Return the mean of a score over the seeds that predict any of the masked samples of a fold."""
    pairs = [(row, mask[None].astype(np.int64)) for row, mask in zip(side, masks, strict=True) if mask.any()]
    scores = [ClassScores.from_counts(mask, paired.labels, row, paired.classes) for row, mask in pairs]
    return float(np.mean([getattr(score, name)[0] for score in scores]))


def sample_intervals(paired: PairedPredictions) -> list[IntervalEnds]:
    """Return the intervals of accuracy and macro F1 for one seed: quantiles of the paired bootstrap."""
    unique = UniqueSamples.from_predictions(paired).add_pseudo_samples()
    return [central_interval(values[:, 0]) for values in bootstrap_differences(unique, paired.samples, RESAMPLES)]


def central_interval(values: Array) -> IntervalEnds:
    low, high = np.quantile(values, [SIGNIFICANCE_LEVEL / 2, 1 - SIGNIFICANCE_LEVEL / 2])
    return float(low), float(high)


def seed_and_sample_intervals(paired: PairedPredictions, macro_f1: Array) -> list[IntervalEnds]:
    """Return the intervals of accuracy and macro F1 over seeds and samples; `macro_f1` has the S differences."""
    repeats, covariance = get_repeats(paired), np.zeros((len(macro_f1),) * 2)
    if not repeats.pooled:
        unique = UniqueSamples.from_predictions(paired)
        _, resampled = bootstrap_differences(unique, paired.samples, COVARIANCE_RESAMPLES)
        covariance = np.cov(repeats.average(resampled.T))
    f1 = SeedSampleVariance.from_covariance(macro_f1, covariance, paired.samples, repeats.overlap)
    return [estimate_variance(paired).interval(SIGNIFICANCE_LEVEL), f1.interval(SIGNIFICANCE_LEVEL)]


def compute_p_value(paired: PairedPredictions) -> float:
    if not is_repeated(paired):
        return significance.mcnemar_p_value(*map(int, paired.discordant[0]))
    if paired.samples == 1 or get_repeats(paired).count == 1:
        return 1.0
    return estimate_variance(paired).p_value()
