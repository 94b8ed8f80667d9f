"""Time-uniform intervals cover at every look at once, and show a large difference early."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import t

from microstep.utils.anytime import PRIOR_VARIANCE, Array, anytime_interval, anytime_intervals, seeds_needed

STUDIES, MOST = 2000, 20


def looks(differences: Array, resolution: float = 0.0) -> tuple[Array, Array]:
    """Return the intervals of studies that look after 2, 3, … differences."""
    low, high = anytime_intervals(differences, resolution=resolution)
    return low[:, 1:], high[:, 1:]


def t_intervals(differences: Array) -> tuple[Array, Array]:
    """Return the plain t interval after 2, 3, … differences."""
    n = np.arange(2, differences.shape[1] + 1)
    parts = [differences[:, :count] for count in n]
    means = np.stack([part.mean(1) for part in parts], 1)
    stds = np.stack([part.std(1, ddof=1) for part in parts], 1)
    half_widths = t.ppf(0.975, n - 1) * stds / np.sqrt(n)
    return means - half_widths, means + half_widths


def ever_missed(intervals: tuple[Array, Array], truth: float) -> float:
    """Return the share of studies in which any interval misses the truth."""
    low, high = intervals
    return float(((low > truth) | (high < truth)).any(1).mean())


def e_value(statistic: float, n: int) -> float:
    """Return the e-value of a t statistic, written as in the papers."""
    spread, x = 1 + n * PRIOR_VARIANCE, statistic**2 / (n - 1)
    return float(spread**-0.5 * ((1 + x) / (1 + x / spread)) ** (n / 2))


@pytest.mark.parametrize("n", [2, 4, 7, 20])
def test_the_e_value_is_one_on_average_and_its_inverse_is_the_interval(n: int) -> None:
    """Without a difference the e-value has mean 1, and it is 1 / 0.05 at the ends of the interval."""
    mean, _ = quad(lambda x: t.pdf(x, n - 1) * e_value(x, n), -np.inf, np.inf, limit=200)
    assert mean == pytest.approx(1, abs=1e-6)
    values = np.random.default_rng(n).normal(3, 2, n)
    low, high = anytime_interval(values)
    assert np.isfinite([low, high]).all() == (n >= 4)
    for end in (low, high) if n >= 4 else ():
        assert e_value((values.mean() - end) / values.std(ddof=1) * n**0.5, n) == pytest.approx(20)


def test_looking_after_every_seed_rarely_shows_a_difference_that_is_not_there() -> None:
    """At most 5 % of studies without a difference ever exclude 0; with the plain t interval over 15 % do."""
    differences = np.random.default_rng(1).standard_normal((STUDIES, MOST))
    assert ever_missed(looks(differences), 0) <= 0.05
    assert ever_missed(t_intervals(differences), 0) > 0.15


def test_a_large_difference_shows_early() -> None:
    """At a difference of 3 standard deviations a study ends at less than 60 % of 20 seeds on average, rightly."""
    low, high = anytime_intervals(3 + np.random.default_rng(2).standard_normal((STUDIES, MOST)))
    shown = low > 0
    assert shown.any(1).all()
    assert (high < 0).sum() == 0
    assert 1 + shown.argmax(1).mean() < 6


@pytest.mark.parametrize("draw", ["laplace", "standard_t", "poisson"])
def test_differences_of_equal_settings_need_not_be_normal(draw: str) -> None:
    """Of equal settings with long tails, or with scores of few samples, at most 5 % of studies ever exclude 0."""
    generator = np.random.default_rng(3)
    arguments = {"laplace": (0, 1), "standard_t": (3,), "poisson": (0.3,)}[draw]
    sides = [getattr(generator, draw)(*arguments, (STUDIES, MOST)).astype(float) for _ in range(2)]
    assert ever_missed(looks(sides[0] - sides[1], resolution=float(draw == "poisson")), 0) <= 0.05


@pytest.mark.parametrize("rate", [0.03, 0.1, 0.3, 0.5])
@pytest.mark.parametrize("step", [1, 2, 4])
def test_equal_differences_at_first_do_not_hide_rare_ones(rate: float, step: int) -> None:
    """If few seeds differ, by 1 to 4 samples and in one direction, the resolution keeps false equivalence below 5 %."""
    differences = step * np.random.default_rng(4).binomial(1, rate, (STUDIES, MOST)).astype(float)
    truth = step * rate
    assert ever_equivalent(looks(differences, resolution=1), truth) <= 0.05
    assert ever_missed(looks(differences, resolution=1), truth) <= 0.06
    if rate < 0.3:
        assert ever_equivalent(looks(differences), truth) > 0.5


def ever_equivalent(intervals: tuple[Array, Array], limit: float) -> float:
    """Return the share of studies in which any interval lies within ± limit."""
    low, high = intervals
    return float(((low > -limit) & (high < limit)).any(1).mean())


@pytest.mark.parametrize("limit", [1.0, 2.0])
def test_equivalence_is_rarely_false(limit: float) -> None:
    """At a true difference of the limit itself, at most 5 % of studies ever lie within ± the limit."""
    differences = limit + np.random.default_rng(5).standard_normal((STUDIES, MOST))
    assert ever_equivalent(looks(differences), limit) <= 0.05
    assert ever_equivalent(looks(differences - limit), limit) > 0.6


def test_an_interval_has_a_width_and_no_order() -> None:
    """Equal differences give an interval as wide as the resolution; order and a constant shift change nothing."""
    assert anytime_interval(np.zeros(6), resolution=0.01) == pytest.approx((-0.0193, 0.0193), abs=1e-4)
    values = np.array([0.1, -0.3, 0.2, 0.5, 0.4])
    assert anytime_interval(values) == pytest.approx(anytime_interval(values[::-1]))
    assert np.subtract(anytime_interval(values + 1e6), 1e6) == pytest.approx(anytime_interval(values), abs=1e-8)
    assert anytime_interval(np.array([1.0])) == anytime_interval(np.array([])) == (-np.inf, np.inf)


def test_a_plan_is_what_studies_need() -> None:
    """The number of seeds grows as the difference shrinks, is that of 80 % of studies, and is None beyond the limit."""
    plans = [seeds_needed(1, difference) for difference in (3, 2, 1, 0.5)]
    assert plans == sorted(plans, key=lambda plan: plan or 0)
    low, _ = anytime_intervals(1 + np.random.default_rng(6).standard_normal((STUDIES, plans[2] or 0)))
    assert (low > 0).any(1).mean() == pytest.approx(0.8, abs=0.03)
    low, high = anytime_intervals(np.random.default_rng(7).standard_normal((STUDIES, 24)))
    assert ((low > -1) & (high < 1)).any(1).mean() == pytest.approx(0.8, abs=0.03)
    assert seeds_needed(1, 1, equivalence=True) == 24
    assert seeds_needed(0, 0.5, resolution=0.001) == 4
    assert seeds_needed(1, 0.01) is None
