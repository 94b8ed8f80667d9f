"""Exact McNemar test, Holm's correction, and the two-way variance over seeds and samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Self

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, stdtr
from scipy.stats import binom, binomtest, norm, t

from microstep.evaluation.comparison.paired import Array
from microstep.utils.repeats import variance_of_mean

POWER = 0.8  #: probability of detecting the smallest detectable difference


def mcnemar_p_value(only_run: int, only_baseline: int) -> float:
    """Return the two-sided p-value of McNemar's exact test; 1 if the two never disagree.

    If both are equally good, each sample that only one of them gets right favors either with probability ½. McNemar,
    Note on the Sampling Error of the Difference between Correlated Proportions or Percentages (Psychometrika 12, 1947).
    """
    discordant = only_run + only_baseline
    return float(binomtest(only_run, discordant).pvalue) if discordant else 1.0


def exact_test_power(samples: int, disagreement: float, difference: float, level: float) -> float:
    """Return the probability that the exact test detects a true difference, with the right sign.

    The power is summed over the number of samples on which the two disagree: Duffy, Asymptotic and Exact Power for the
    McNemar Test and its Analogue with R Controls per Case (Biometrics 40, 1984).

    `disagreement` is the share of samples that exactly one of the two gets right, at least `difference`, the true
    difference in accuracy, which is positive.
    """
    disagreement = min(1.0, max(disagreement, difference))
    few, many = binom.ppf([1e-9, 1 - 1e-9], samples, disagreement)
    discordant = np.arange(few, many + 1)
    share = (disagreement + difference) / (2 * disagreement)
    detected = binom.sf(binom.isf(level / 2, discordant, 0.5), discordant, share)
    return float(binom.pmf(discordant, samples, disagreement) @ detected)


def find_smallest_difference(samples: int, disagreement: float, level: float) -> float | None:
    """Return the smallest true difference in accuracy that the exact test detects with `POWER`; None if there is none.

    Assumes that the two disagree on the observed share of samples, or on as many as the difference needs.
    """

    def excess_power(difference: float) -> float:
        return exact_test_power(samples, disagreement, difference, level) - POWER

    return float(brentq(excess_power, 1e-9, 1.0, xtol=1e-6)) if excess_power(1.0) >= 0 else None


def correct_holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for multiple testing, in the same order.

    The probability that any true null hypothesis gets a corrected p-value below 0.05 is at most 0.05. Holm, A Simple
    Sequentially Rejective Multiple Test Procedure (Scandinavian Journal of Statistics 6, 1979).
    """
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, float)[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(1, np.maximum.accumulate(steps))
    return [float(p) for p in corrected]


NORMAL_GRID = np.linspace(-8.5, 8.5, 401)  #: standard deviations at which the normal density is integrated
NORMAL_MASS = norm.pdf(NORMAL_GRID) * (NORMAL_GRID[1] - NORMAL_GRID[0])
#: Points at which Student's density is integrated, and the width of each: double-exponential, since its tails are long.
UNIT_GRID = np.linspace(-4.5, 4.5, 401)
STUDENT_GRID = np.sinh(np.pi / 2 * np.sinh(UNIT_GRID))
STUDENT_WIDTHS = np.gradient(UNIT_GRID) * np.pi / 2 * np.cosh(UNIT_GRID) * np.cosh(np.pi / 2 * np.sinh(UNIT_GRID))


@dataclass(frozen=True)
class SeedSampleVariance:
    """Mean difference over S seeds and N samples, with a variance for other seeds and other samples.

    The variance has two parts, as in studies with several readers and cases (Obuchowski and Rockette, Communications
    in Statistics – Simulation and Computation 24, 1995; Hillis, Statistics in Medicine 26, 2007): the variance of the
    seeds' differences ÷ S, and the mean covariance between seeds over resampled samples. The first is estimated from S
    numbers, so its error has Student's t-distribution. The second is estimated from all samples, and its error is
    normal. They add up as in the Behrens–Fisher problem (Fisher, The Fiducial Argument in Statistical Inference,
    Annals of Eugenics 6, 1935), whose intervals cover 95 % or slightly more.

    Seeds are not resampled: with three seeds, the bootstrap underestimates the variance of the mean by a third, and its
    quantiles take few distinct values.
    """

    difference: float
    over_seeds: float  #: variance
    over_samples: float  #: variance, positive
    seeds: int

    @classmethod
    def from_covariance(cls, differences: Array, covariance: Array, samples: int, overlap: float = 0.0) -> Self:
        """Return the variance of the mean of S differences, with their S × S covariance over resampled samples.

        Folds instead of seeds have an `overlap`, as in `variance_of_mean`.
        The part over samples is at least that of one additional sample that only the run gets right with every seed,
        and one that only the baseline does. Otherwise seeds that never disagree would give an interval of width 0.
        """
        seeds = len(differences)
        shared = (covariance.sum() - np.trace(covariance)) / (seeds * (seeds - 1))
        least = 2 / samples**2
        return cls(float(differences.mean()), variance_of_mean(differences, overlap), max(shared, least), seeds)

    @classmethod
    def from_values(cls, values: Array, overlap: float = 0.0) -> Self:
        """Return the variance of the mean of S × N values; their covariance needs no resampling."""
        samples = values.shape[1]
        return cls.from_covariance(values.mean(1), np.cov(values) / samples, samples, overlap)

    def tail_probability(self, distance: float) -> float:
        """Return the probability that the error exceeds a distance in one direction."""
        # the density of the smaller error is integrated: the other distribution is smooth on its grid
        seeds, samples, freedom = sqrt(self.over_seeds), sqrt(self.over_samples), self.seeds - 1
        if seeds < samples:
            mass = t.pdf(STUDENT_GRID, freedom) * STUDENT_WIDTHS
            return float(mass @ ndtr((seeds * STUDENT_GRID - distance) / samples))
        return float(NORMAL_MASS @ stdtr(freedom, (samples * NORMAL_GRID - distance) / seeds))

    def tail_quantile(self, probability: float) -> float:
        """Return the distance that the error exceeds with a probability below 0.5 in one direction."""
        half = probability / 2
        most = sqrt(self.over_samples) * norm.isf(half) + sqrt(self.over_seeds) * t.isf(half, self.seeds - 1)
        return float(brentq(lambda distance: self.tail_probability(distance) - probability, 0, most, xtol=1e-9))

    def p_value(self, truth: float = 0.0) -> float:
        """Return the two-sided p-value of the hypothesis that the true difference is `truth`."""
        return min(1.0, 2 * self.tail_probability(abs(self.difference - truth)))

    def interval(self, level: float) -> tuple[float, float]:
        """Return the ends of the confidence interval: the true differences with a p-value of at least `level`."""
        half_width = self.tail_quantile(level / 2)
        return self.difference - half_width, self.difference + half_width

    def smallest_difference(self, level: float, power: float) -> float:
        """Return the smallest true difference detected with this power (Bloom, Minimum Detectable Effects, 1995)."""
        return self.tail_quantile(level / 2) + self.tail_quantile(1 - power)
