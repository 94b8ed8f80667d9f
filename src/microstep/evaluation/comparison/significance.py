"""Exact McNemar test, Holm's correction, and the two-way variance over seeds and samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy.optimize import brentq
from scipy.special import stdtr
from scipy.stats import binom, binomtest, norm, t

from microstep.evaluation.comparison.paired import Array

POWER = 0.8  #: with which the smallest difference would show: in four of five comparisons


def mcnemar_p_value(only_run: int, only_baseline: int) -> float:
    """Return the two-sided p-value of McNemar's exact test; 1 where the two never disagree.

    Were both equally good, whoever alone is right would be a toss of a coin. McNemar, Note on the Sampling Error of the
    Difference between Correlated Proportions or Percentages (Psychometrika 12, 1947).
    """
    tosses = only_run + only_baseline
    return float(binomtest(only_run, tosses).pvalue) if tosses else 1.0


def exact_test_power(samples: int, disagreement: float, difference: float, level: float) -> float:
    """Return how often the exact test shows a true difference, in the right direction.

    Duffy, Asymptotic and Exact Power for the McNemar Test and its Analogue with R Controls per Case (Biometrics 40,
    1984): summed over how many samples the two may disagree on.

    Args:
        disagreement: the share of samples that exactly one of the two gets right; at least `difference`.
        difference: in accuracy, positive.
        level: of the two-sided test.
    """
    disagreement = min(1.0, max(disagreement, difference))
    few, many = binom.ppf([1e-9, 1 - 1e-9], samples, disagreement)
    tosses = np.arange(few, many + 1)
    shown = binom.sf(binom.isf(level / 2, tosses, 0.5), tosses, (disagreement + difference) / (2 * disagreement))
    return float(binom.pmf(tosses, samples, disagreement) @ shown)


def find_smallest_difference(samples: int, disagreement: float, level: float) -> float | None:
    """Return the least true difference in accuracy that the exact test shows with `POWER`; None where none would.

    The two are taken to disagree as often as they were seen to, or as often as the difference needs.
    """

    def lacking(difference: float) -> float:
        return exact_test_power(samples, disagreement, difference, level) - POWER

    return float(brentq(lacking, 1e-9, 1.0, xtol=1e-6)) if lacking(1.0) >= 0 else None


def correct_holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for being several: those below 0.05 hold together with 95 % confidence.

    Holm, A Simple Sequentially Rejective Multiple Test Procedure (Scandinavian Journal of Statistics 6, 1979).
    """
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, float)[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(1, np.maximum.accumulate(steps))
    return [float(p) for p in corrected]


NORMAL_GRID = np.linspace(-8.5, 8.5, 401)  #: deviations of a normal error, from one end to the other
NORMAL_MASS = norm.pdf(NORMAL_GRID) * (NORMAL_GRID[1] - NORMAL_GRID[0])


@dataclass(frozen=True)
class SeedSampleVariance:
    """A mean difference over S seeds and N samples, both of which are some of many.

    Its variance has two parts, as where several readers judge the same cases by two methods: that of the seeds' own
    differences ÷ S, and the mean covariance between seeds over resampled samples (Obuchowski and Rockette,
    Communications in Statistics – Simulation and Computation 24, 1995; Hillis, Statistics in Medicine 26, 2007).
    The first is an estimate from S numbers, so its part of the error has Student's distribution; the second comes
    from all samples, and its part is normal. They add up as in the Behrens–Fisher problem (Fisher, The Fiducial
    Argument in Statistical Inference, Annals of Eugenics 6, 1935), whose intervals cover 95 % or somewhat more.

    Seeds are not resampled: three of them, drawn with replacement, differ by a third too little in the mean, and their
    bootstrap's ends are no quantiles of anything.
    """

    difference: float
    over_seeds: float  #: variance
    over_samples: float  #: variance, positive
    seeds: int

    @classmethod
    def of(cls, differences: Array, covariance: Array, samples: int) -> SeedSampleVariance:
        """Return it from each seed's difference (S), and their covariance (S × S) over resampled samples.

        That over samples is at least what one sample more would make of it that only the run gets right in every
        seed, and one that only the baseline does: without it, seeds that never disagree would prove too much.
        """
        seeds = len(differences)
        shared = (covariance.sum() - np.trace(covariance)) / (seeds * (seeds - 1))
        least = 2 / samples**2
        return cls(float(differences.mean()), float(differences.var(ddof=1)) / seeds, max(shared, least), seeds)

    @classmethod
    def of_means(cls, values: Array) -> SeedSampleVariance:
        """Return that of S × N values' mean, whose covariance over resampled samples is known without resampling."""
        samples = values.shape[1]
        return cls.of(values.mean(1), np.cov(values) / samples, samples)

    def beyond(self, distance: float) -> float:
        """Return how often the error exceeds a distance in one direction."""
        seeds, samples = sqrt(self.over_seeds), sqrt(self.over_samples)
        if not seeds:
            return float(norm.sf(distance / samples))
        return float(NORMAL_MASS @ stdtr(self.seeds - 1, (samples * NORMAL_GRID - distance) / seeds))

    def p_value(self, truth: float = 0.0) -> float:
        """Return how often chance alone would differ this much from a true difference, or more."""
        return min(1.0, 2 * self.beyond(abs(self.difference - truth)))

    def reach(self, share: float) -> float:
        """Return the distance that the error exceeds this often in one direction; `share` is below 0.5."""
        most = sqrt(self.over_samples) * norm.isf(share / 2) + sqrt(self.over_seeds) * t.isf(share / 2, self.seeds - 1)
        return float(brentq(lambda distance: self.beyond(distance) - share, 0, most, xtol=1e-9))

    def interval(self, level: float) -> tuple[float, float]:
        """Return the ends of the interval whose p-values are `level` or more."""
        reach = self.reach(level / 2)
        return self.difference - reach, self.difference + reach

    def smallest_difference(self, level: float, power: float) -> float:
        """Return the least true difference that would show with that power.

        Bloom, Minimum Detectable Effects (Evaluation Review 19, 1995).
        """
        return self.reach(level / 2) + self.reach(1 - power)
