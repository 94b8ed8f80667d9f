"""Time-uniform confidence intervals for the mean of paired differences, valid however often one looks.

A sequence of intervals covers the true mean at every number of differences at once with probability 1 − LEVEL. One
may look after every difference, stop whenever the answer is clear, and go on later. A t interval allows one look.

The interval at n differences holds the means m that the e-value e_n(m) doesn't reject: e_n(m) < 1 / LEVEL. The e-value
is the ratio of the likelihoods of the t statistic of m if the effect size (mean − m) / σ has the distribution
N(0, PRIOR_VARIANCE), and if it is 0. Under m it is a nonnegative martingale that starts at 1, whatever σ is, so
Ville's inequality bounds the probability that it ever reaches 1 / LEVEL. Lai, On Confidence Sequences (Annals of
Statistics 4, 1976); Pérez-Ortiz, Lardy, de Heide and Grünwald, E-Statistics, Group Invariance and Anytime-Valid Testing
(Annals of Statistics 52, 2024); Wang and Ramdas, Anytime-Valid T-Tests and Confidence Sequences for Gaussian Means with
Unknown Variance (Sequential Analysis 44, 2025).

Differences are assumed to be normal. Those of two equal settings are symmetric, which suffices in simulations.
"""

import numpy as np

Array = np.ndarray
LEVEL = 0.05  #: probability that any of the intervals misses the mean
#: Variance of the effect size. The mean number of differences until an effect of 1, 2 or 3 standard deviations shows
#: is within 6 % of the smallest that any value gives. Intervals are finite from 4 differences on.
PRIOR_VARIANCE = 4.0
PLANNING_STUDIES, MOST_PLANNED_SEEDS, POWER = 1000, 500, 0.8


def anytime_interval(differences: Array, resolution: float = 0.0) -> tuple[float, float]:
    """Return the ends of the last of `anytime_intervals`, whatever the order; infinite if there are too few."""
    low, high = anytime_intervals(np.asarray(differences, float), resolution)
    return (float(low[-1]), float(high[-1])) if len(low) else (-np.inf, np.inf)


def anytime_intervals(differences: Array, resolution: float = 0.0) -> tuple[Array, Array]:
    """Return the ends of the intervals after the first difference, the first two, and so on.

    Args:
        differences: independent differences, … × n; each row is a study.
        resolution: smallest step of a difference, such as 1 / N for accuracies on N samples. The standard deviation is
            taken to be at least that: otherwise a few equal differences would give an interval of width 0.

    Returns:
        Lower and upper ends, … × n each; ±inf as long as there are too few differences.
    """
    counts = np.arange(1, differences.shape[-1] + 1)
    shift = differences[..., :1]  # differences from the first lose no digits when squared
    means = np.cumsum(differences - shift, -1) / counts
    squares = np.cumsum((differences - shift) ** 2, -1) - counts * means**2
    variances = np.maximum(squares / np.maximum(counts - 1, 1), resolution**2)
    half_widths = np.nan_to_num(half_width_factors(counts) * np.sqrt(variances), nan=np.inf)
    return means + shift - half_widths, means + shift + half_widths


def half_width_factors(counts: Array) -> Array:
    """Return half of the width of the intervals of n differences, in standard deviations; NaN if infinite."""
    spread = 1 + counts * PRIOR_VARIANCE
    ratio = (np.sqrt(spread) / LEVEL) ** (2 / counts)
    room = np.where(ratio < spread, 1 - ratio / spread, np.nan)
    return np.asarray(np.sqrt((counts - 1) * (ratio - 1) / room / counts))


def seeds_needed(std: float, difference: float, equivalence: bool = False, resolution: float = 0.0) -> int | None:
    """Return the number of seeds after which 80 % of studies that look at every seed have their answer.

    Args:
        std: standard deviation of the paired differences over seeds.
        difference: true difference that the interval shows by excluding 0. For `equivalence`, the true difference is
            0, and the interval shows it by lying within ± `difference`.
        resolution: as for `anytime_intervals`.

    Returns:
        The number of seeds, simulated with a fixed generator; None if it is more than `MOST_PLANNED_SEEDS`.
    """
    studies = np.random.default_rng(0).standard_normal((PLANNING_STUDIES, MOST_PLANNED_SEEDS)) * std
    low, high = anytime_intervals(studies + (0 if equivalence else difference), resolution)
    ended = (low > -difference) & (high < difference) if equivalence else (low > 0) | (high < 0)
    shares = np.logical_or.accumulate(ended, 1).mean(0)
    return int(np.argmax(shares >= POWER)) + 1 if shares[-1] >= POWER else None
