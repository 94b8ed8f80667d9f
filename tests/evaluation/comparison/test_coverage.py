"""95 % intervals cover the true difference in 93 to 97 % of 2,000 simulated pairs.

Intervals that ignore the pairing of samples or the variance over seeds do not.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import norm

from microstep.evaluation.comparison import estimates
from microstep.evaluation.comparison.estimates import central_interval, sample_intervals, seed_and_sample_intervals
from microstep.evaluation.comparison.paired import PairedPredictions
from microstep.evaluation.comparison.significance import SeedSampleVariance

Ends = tuple[float, float]
PAIRS = 2000
CLASSES = 3


@pytest.fixture
def fewer(monkeypatch) -> None:
    """Use fewer resamples; the coverage is the same within half a percent."""
    monkeypatch.setattr(estimates, "RESAMPLES", 300)
    monkeypatch.setattr(estimates, "COVARIANCE_RESAMPLES", 100)


def one_seed(samples: int, right: tuple[float, float, float], rng: np.random.Generator) -> PairedPredictions:
    """Return a pair; `right` has the shares of samples that both, only the run, and only the baseline get right."""
    labels = rng.integers(CLASSES, size=samples)
    kind = rng.choice(4, p=[*right, 1 - sum(right)], size=samples)
    wrong = (labels + rng.integers(1, CLASSES, size=samples)) % CLASSES
    run, baseline = (np.where(np.isin(kind, which), labels, wrong)[None] for which in ([0, 1], [0, 2]))
    return PairedPredictions(labels, run, baseline, CLASSES)


def several_seeds(
    seeds: int, samples: int, between: float, rng: np.random.Generator, right: tuple[float, float] = (0.92, 0.90)
) -> PairedPredictions:
    """Return a pair that is right so often in the mean over all seeds and samples there could be.

    What decides a sample is how hard it is, for both and for each, how good the seed is (`between` seeds), and chance.
    """
    labels, hard = rng.integers(CLASSES, size=samples), rng.normal(size=samples)
    wrong = (labels + rng.integers(1, CLASSES, size=samples)) % CLASSES
    spread = (1 + 0.25 + 0.5 + between**2) ** 0.5
    sides = []
    for share in right:
        own, good = 0.5 * rng.normal(size=samples), between * rng.normal(size=(seeds, 1))
        drawn = hard + own + good + 0.5**0.5 * rng.normal(size=(seeds, samples))
        sides.append(np.where(drawn + spread * norm.ppf(share) > 0, labels, wrong))
    return PairedPredictions(labels, *sides, CLASSES)


def coverage(
    make: Callable[[np.random.Generator], PairedPredictions],
    intervals: Callable[[PairedPredictions], list[Ends]],
    pairs: int = PAIRS,
) -> list[float]:
    """Return how often each interval contains the true difference of 0.02, ends included."""
    rng = np.random.default_rng(0)
    ends = np.array([intervals(make(rng)) for _ in range(pairs)])
    return list(((ends[..., 0] - 1e-9 <= 0.02) & (ends[..., 1] + 1e-9 >= 0.02)).mean(0))


ONE_SEED = {"180 samples": (180, (0.88, 0.04, 0.02)), "1,000 samples": (1000, (0.87, 0.05, 0.03))}


@pytest.mark.usefixtures("fewer")
@pytest.mark.parametrize(("samples", "right"), ONE_SEED.values(), ids=ONE_SEED)
def test_the_interval_over_samples_covers_95_percent(samples, right):
    """Accuracy and macro F1 of about 0.92 and 0.90, correlated, one seed; their true differences are the same here."""
    for found in coverage(lambda rng: one_seed(samples, right, rng), sample_intervals):
        assert 0.93 <= found <= 0.97


SEVERAL = {"5 seeds": (5, 180, 0.1), "5 seeds, 1,000 samples": (5, 1000, 0.1)}


@pytest.mark.parametrize(("seeds", "samples", "between"), SEVERAL.values(), ids=SEVERAL)
def test_the_interval_over_seeds_and_samples_covers_95_percent(seeds, samples, between):
    """With few seeds that differ, the interval accounts for other seeds and other samples."""

    def interval(pair: PairedPredictions) -> list[Ends]:
        return [SeedSampleVariance.from_values(pair.differences).interval(estimates.SIGNIFICANCE_LEVEL)]

    assert 0.93 <= coverage(lambda rng: several_seeds(seeds, samples, between, rng), interval)[0] <= 0.97


@pytest.mark.long
@pytest.mark.usefixtures("fewer")
def test_with_three_seeds_both_scores_are_covered():
    """The covariance of macro F1 between seeds comes from the bootstrap."""

    def interval(pair: PairedPredictions) -> list[Ends]:
        run, baseline = estimates.compute_repeat_scores(pair, "macro_f1")
        return seed_and_sample_intervals(pair, run - baseline)

    for found in coverage(lambda rng: several_seeds(3, 180, 0.2, rng), interval):
        assert 0.93 <= found <= 0.97


def unpaired(pair: PairedPredictions) -> list[Ends]:
    """Return the wrong interval that resamples each side independently."""
    rng, samples = np.random.default_rng(0), pair.samples
    shares = [rng.binomial(samples, (side == pair.labels).mean(), 500) / samples for side in (pair.run, pair.baseline)]
    return [central_interval(shares[0] - shares[1])]


def seeds_kept(pair: PairedPredictions) -> list[Ends]:
    """Return the wrong interval that resamples only samples, as if there were no other seeds."""
    means, reach = pair.differences.mean(0), norm.ppf(0.975) / pair.samples**0.5
    return [(means.mean() - reach * means.std(), means.mean() + reach * means.std())]


def seeds_resampled(pair: PairedPredictions) -> list[Ends]:
    """Return the usual interval that resamples seeds and samples, for which three seeds are too few."""
    rng = np.random.default_rng(0)
    seeds, samples = (rng.multinomial(n, np.full(n, 1 / n), 200) / n for n in pair.differences.shape)
    return [central_interval((seeds @ pair.differences * samples).sum(1))]


def test_forgetting_that_samples_are_paired_is_seen():
    """Unpaired intervals are far too wide and cover more than 97 %."""
    assert coverage(lambda rng: one_seed(180, (0.88, 0.04, 0.02), rng), unpaired)[0] > 0.97


@pytest.mark.parametrize("wrong", [seeds_kept, seeds_resampled])
def test_forgetting_seeds_or_drawing_from_three_is_seen(wrong):
    """Intervals that keep the seeds fixed, or resample three of them, cover less than 90 %."""
    assert coverage(lambda rng: several_seeds(3, 180, 0.4, rng), wrong, 500)[0] < 0.9
