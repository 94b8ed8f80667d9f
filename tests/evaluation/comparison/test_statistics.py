"""Statistics of a comparison, checked against independent results."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import comb

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import bootstrap, norm, t
from sklearn.metrics import accuracy_score, f1_score, recall_score

from microstep.evaluation.comparison.bootstrap import UniqueSamples, bootstrap_differences
from microstep.evaluation.comparison.paired import ClassScores, PairedPredictions, PairedScores
from microstep.evaluation.comparison.results import ComparisonResult
from microstep.evaluation.comparison.significance import (
    SeedSampleVariance,
    correct_holm,
    exact_test_power,
    find_smallest_difference,
    mcnemar_p_value,
)
from microstep.evaluation.comparison.text import format_score
from microstep.evaluation.comparison.verdict import Verdict, format_difference, make_verdicts
from microstep.utils.anytime import anytime_interval


def constructed(both: int, run: int, baseline: int, neither: int = 0) -> PairedPredictions:
    """Return samples of two classes with given numbers right with both, only the run, only the baseline, neither."""
    ours = [1] * both + [1] * run + [0] * baseline + [0] * neither
    theirs = [1] * both + [0] * run + [1] * baseline + [0] * neither
    labels = np.arange(len(ours)) % 2
    return PairedPredictions(
        labels, *(np.where(np.array([side]) == 1, labels, 1 - labels) for side in (ours, theirs)), 2
    )


def noisy(seeds: int, samples: int, classes: int, seed: int = 0) -> PairedPredictions:
    """Return predictions with random errors."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=samples)
    sides = [
        np.where(rng.random((seeds, samples)) < right, labels, rng.integers(classes, size=(seeds, samples)))
        for right in (0.8, 0.7)
    ]
    return PairedPredictions(labels, *sides, classes)


@pytest.mark.parametrize(("run", "baseline"), [(0, 0), (1, 0), (5, 0), (6, 0), (8, 2), (3, 3), (40, 21)])
def test_mcnemar_is_the_sum_of_its_binomials(run, baseline):
    """The p-value is the two-sided sum of binomial probabilities; 1 without disagreements."""
    n, k = run + baseline, max(run, baseline)
    tails = 2 * sum(comb(n, i) for i in range(k, n + 1)) / 2**n
    assert mcnemar_p_value(run, baseline) == pytest.approx(min(1.0, tails))
    assert mcnemar_p_value(baseline, run) == mcnemar_p_value(run, baseline)


def test_five_to_nothing_is_not_enough_and_six_is():
    """The smallest count that is significant at 5 % is 6:0, as 2/32 is above 5 % and 2/64 below."""
    assert (mcnemar_p_value(5, 0), mcnemar_p_value(6, 0)) == (0.0625, 0.03125)


def test_holm_is_the_worked_example():
    """0.01, 0.04, 0.03, 0.005 become 0.03, 0.06, 0.06, 0.02 in the same order; a single p-value is unchanged."""
    assert correct_holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert correct_holm([0.04]) == [0.04]
    assert correct_holm([0.6, 0.9]) == [1.0, 1.0]
    assert correct_holm([]) == []


@pytest.mark.parametrize(
    ("samples", "disagreement", "difference"), [(180, 0.1, 0.06), (1000, 0.08, 0.02), (60, 0.1, 0.1)]
)
def test_power_is_how_often_the_test_shows_it(samples, disagreement, difference):
    """20,000 simulated comparisons find a true difference as often as the power says, within 1 %."""
    only = (disagreement + difference) / 2, (disagreement - difference) / 2
    drawn = np.random.default_rng(0).multinomial(samples, [*only, 1 - sum(only)], 20_000)
    tests = {pair: mcnemar_p_value(*pair) for pair in {(int(run), int(baseline)) for run, baseline, _ in drawn}}
    shown = np.mean([tests[run, baseline] < 0.05 and run > baseline for run, baseline, _ in drawn.tolist()])
    assert exact_test_power(samples, disagreement, difference, 0.05) == pytest.approx(shown, abs=0.01)


def test_the_smallest_difference_shows_in_four_of_five():
    """Its power is 0.8; it grows with fewer samples and a stricter level, and does not exist for five samples."""
    least = find_smallest_difference(180, 0.08, 0.05)
    assert exact_test_power(180, 0.08, least, 0.05) == pytest.approx(0.8, abs=1e-3)
    assert find_smallest_difference(90, 0.08, 0.05) > least < find_smallest_difference(180, 0.08, 0.05 / 3)
    assert find_smallest_difference(5, 0.2, 0.05) is None
    assert find_smallest_difference(180, 0.0, 0.05) == pytest.approx(8 / 180, abs=2e-3)  # eight to nothing, or nearly


def test_the_scores_are_scikit_learns():
    """Accuracy, recall, F1 and macro F1 of a resample equal scikit-learn's, also for absent classes."""
    rng = np.random.default_rng(1)
    labels, predictions = rng.integers(4, size=30), rng.integers(5, size=30)
    counts = rng.multinomial(30, np.full(30, 1 / 30), 20)
    found = ClassScores.from_counts(counts, labels, predictions, 6)
    for row, weights in enumerate(counts):
        truth, answers = np.repeat(labels, weights), np.repeat(predictions, weights)
        options = {"labels": range(6), "average": None, "zero_division": 0}
        assert found.accuracy[row] == pytest.approx(accuracy_score(truth, answers))
        assert found.recall[row] == pytest.approx(recall_score(truth, answers, **options))
        assert found.f1[row] == pytest.approx(f1_score(truth, answers, **options))
        assert found.macro_f1[row] == pytest.approx(f1_score(truth, answers, **options | {"average": "macro"}))


def test_the_bootstrap_is_scipys():
    """Resampling unique samples gives SciPy's paired percentile interval within the bootstrap's noise."""
    paired = noisy(1, 400, 3)
    accuracy, macro_f1 = bootstrap_differences(UniqueSamples.from_predictions(paired), 400, 20_000)
    columns = (paired.labels, paired.run[0], paired.baseline[0])

    def difference(labels, run, baseline):
        return f1_score(labels, run, average="macro") - f1_score(labels, baseline, average="macro")

    options = {"paired": True, "vectorized": False, "method": "percentile", "rng": np.random.default_rng(2)}
    theirs = bootstrap(
        columns, lambda true, run, base: np.mean(run == true) - np.mean(base == true), n_resamples=4000, **options
    )
    assert np.quantile(accuracy, [0.025, 0.975]) == pytest.approx(theirs.confidence_interval, abs=0.006)
    theirs = bootstrap(columns, difference, n_resamples=500, **options)
    assert np.std(macro_f1) == pytest.approx(theirs.standard_error, rel=0.1)


def test_cells_lose_no_sample():
    """Equal samples are one cell with their weight; what the bootstrap draws adds up to as many samples."""
    cells = UniqueSamples.from_predictions(constructed(both=90, run=6, baseline=3, neither=1))
    assert (len(cells.labels), cells.weights.sum()) == (7, 100)
    parts = list(cells.iter_resamples(100, 50))
    assert np.concatenate(parts).sum(1).tolist() == [100] * 50


def test_the_bootstrap_is_held_in_parts(monkeypatch):
    """However much memory may be used, every resample is made."""
    monkeypatch.setattr("microstep.evaluation.comparison.bootstrap.MAX_NUMBERS_HELD", 64)
    accuracy, macro_f1 = bootstrap_differences(UniqueSamples.from_predictions(noisy(2, 50, 3)), 50, 31)
    assert accuracy.shape == macro_f1.shape == (31, 2)


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_same_predictions_give_the_same_interval(seeds):
    """Nothing depends on when it is asked."""
    assert (
        ComparisonResult.from_predictions(noisy(seeds, 100, 3)).macro_f1
        == ComparisonResult.from_predictions(noisy(seeds, 100, 3)).macro_f1
    )


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_exchanging_the_sides_exchanges_the_signs(seeds):
    """Exchanging run and baseline negates the differences within the bootstrap's noise."""
    paired = noisy(seeds, 150, 3)
    one, other = (
        ComparisonResult.from_predictions(paired),
        ComparisonResult.from_predictions(PairedPredictions(paired.labels, paired.baseline, paired.run, 3)),
    )
    assert one.p_value == other.p_value
    for a, b in ((one.score, other.score), (one.macro_f1, other.macro_f1)):
        assert (a.difference, a.low, a.high) == pytest.approx((-b.difference, -b.high, -b.low), abs=0.01)


@pytest.mark.parametrize("seeds", [1, 3])
def test_equal_predictions_prove_no_equality(seeds):
    """If the two never disagree, the difference is 0 and p is 1, but the interval reaches 3 ÷ N on either side."""
    paired = constructed(both=170, run=0, baseline=0, neither=10)
    paired = PairedPredictions(paired.labels, *(np.repeat(side, seeds, 0) for side in (paired.run, paired.baseline)), 2)
    found = ComparisonResult.from_predictions(paired)
    assert (found.score.difference, found.p_value) == (0, 1)
    for score in (found.score, found.macro_f1):
        assert (score.low, score.high) == pytest.approx((-3 / 180, 3 / 180), abs=2e-3)
    assert make_verdicts([found])[0].word == "no difference"


def test_two_ways_without_samples_is_students():
    """If the variance over samples is negligible, the interval is Student's over seeds."""
    differences = np.array([0.02, 0.05, 0.01, 0.04])
    found = SeedSampleVariance.from_covariance(differences, np.zeros((4, 4)), 10**6)
    reach = t.ppf(0.975, 3) * differences.std(ddof=1) / 2
    assert found.interval(0.05) == pytest.approx((0.03 - reach, 0.03 + reach), abs=1e-5)


def test_two_ways_without_seeds_is_normal():
    """If all seeds have the same difference, the interval is the normal one over samples."""
    found = SeedSampleVariance.from_covariance(np.full(3, 0.03), np.full((3, 3), 1e-4), 1000)
    assert found.interval(0.05) == pytest.approx((0.03 - norm.ppf(0.975) / 100, 0.03 + norm.ppf(0.975) / 100), abs=1e-9)


@pytest.mark.parametrize(("over_seeds", "over_samples", "seeds"), [(1e-4, 1e-4, 3), (1e-3, 1e-5, 2), (1e-6, 1e-4, 5)])
def test_two_ways_are_the_sum_of_both_errors(over_seeds, over_samples, seeds):
    """The tail probability matches a million random sums of a Student's and a normal error."""
    rng = np.random.default_rng(0)
    errors = rng.standard_t(seeds - 1, 10**6) * over_seeds**0.5 + rng.normal(size=10**6) * over_samples**0.5
    found = SeedSampleVariance(0.0, over_seeds, over_samples, seeds)
    for distance in (0.0, 0.01, 0.03):
        assert found.tail_probability(distance) == pytest.approx(np.mean(errors > distance), abs=2e-3)
    assert found.p_value(found.interval(0.05)[1]) == pytest.approx(0.05, abs=1e-6)


def test_the_means_covariance_is_the_bootstraps():
    """The formula for accuracy gives the covariance of the bootstrap."""
    paired = noisy(3, 200, 4)
    accuracy, _ = bootstrap_differences(UniqueSamples.from_predictions(paired), 200, 20_000)
    by_resampling = SeedSampleVariance.from_covariance(paired.differences.mean(1), np.cov(accuracy, rowvar=False), 200)
    assert SeedSampleVariance.from_values(paired.differences).over_samples == pytest.approx(
        by_resampling.over_samples, rel=0.1
    )


SAID = {
    "better": ((150, 18, 4), "A is better than B: +7.8 points of accuracy (95 % interval +2.8 to +12.8, p = 0.0043)"),
    "worse": ((150, 4, 18), "A is worse than B: −7.8 points of accuracy (95 % interval −12.8 to −2.8, p = 0.0043)"),
    "no difference": ((160, 7, 5), "No difference between A and B that 180 samples could show: +1.1 points"),
}


@pytest.mark.parametrize("word", SAID)
def test_the_sentence_says_what_the_figures_do(word):
    """The sentence has the verdict, the difference, its interval and p, and the detectable difference."""
    (both, run, baseline), said = SAID[word]
    found = make_verdicts(
        [ComparisonResult.from_predictions(constructed(both, run, baseline, 180 - both - run - baseline))]
    )[0]
    assert found.word == word
    assert found.format_sentence("A", "B").startswith(said)
    assert ("would have shown in 4 of 5" in found.format_sentence("A", "B")) == (word == "no difference")


@pytest.mark.parametrize("run", range(22))
@pytest.mark.parametrize("baseline", [0, 1, 4])
def test_the_sentence_contradicts_no_figure(run, baseline):
    """It claims a difference if p is below 0.05 and the interval excludes zero, and says if they disagree."""
    found = make_verdicts([ComparisonResult.from_predictions(constructed(150, run, baseline, 5))])[0]
    low, high, p = found.result.score.low, found.result.score.high, found.result.p_value
    assert (found.word != "no difference") == (p < 0.05 and (low > 0 or high < 0))
    assert ("at the margin" in found.format_sentence("A", "B")) == ((p < 0.05) != (low > 0 or high < 0))


@pytest.mark.parametrize(
    ("p", "low", "word"), [(0.04, -0.01, "no difference"), (0.06, 0.01, "no difference"), (0.04, 0.01, "better")]
)
def test_test_and_interval_must_agree(p, low, word):
    """A difference is claimed if both find it; if only one does, the sentence says that they disagree."""
    found = ComparisonResult.from_predictions(constructed(150, 18, 4, 8))
    verdict = Verdict(replace(found, p_value=p, score=replace(found.score, low=low)), p, 1)
    assert verdict.word == word
    assert ("at the margin" in verdict.format_sentence("A", "B")) == (word == "no difference")


def test_several_comparisons_are_held_to_more():
    """A difference that one comparison finds may be none of five; the detectable difference grows as well."""
    one = ComparisonResult.from_predictions(constructed(160, 12, 2, 6))
    alone, of_five = make_verdicts([one])[0], make_verdicts([one] * 5)[0]
    assert (alone.word, of_five.word) == ("better", "no difference")
    assert of_five.p_value == pytest.approx(5 * alone.p_value)
    assert of_five.smallest_difference > alone.smallest_difference
    assert "p = 0.013 alone, p = 0.065 corrected for 5 comparisons" in of_five.format_sentence("A", "B")


def test_few_samples_can_show_nothing():
    """With five samples, all right only with the run, the sentence says that they are too few."""
    found = Verdict(ComparisonResult.from_predictions(constructed(0, 5, 0)), 0.0625, 1)
    assert found.format_sentence("A", "B").endswith("; they are too few to show any difference.")


def test_classes_are_counted_each_by_itself():
    """Recall, F1 and the counts are those of the class's own samples; absent classes are left out."""
    paired = noisy(3, 200, 4)
    found = ComparisonResult.from_predictions(PairedPredictions(paired.labels, paired.run, paired.baseline, 6)).classes
    assert [one.label for one in found] == [0, 1, 2, 3]
    for one in found:
        chosen = paired.labels == one.label
        assert one.samples == chosen.sum()
        assert one.recall[0] == pytest.approx((paired.run[:, chosen] == one.label).mean())
        assert one.recall[0] - one.recall[1] == pytest.approx((one.only_run - one.only_baseline) / one.samples)
        f1 = [f1_score(paired.labels, row, labels=[one.label], average="macro") for row in paired.baseline]
        assert one.f1[1] == pytest.approx(np.mean(f1))


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_class_of_one_sample_is_no_trouble(seeds):
    """A class with one sample has the p-value 1."""
    paired = noisy(seeds, 60, 3)
    labels = np.append(paired.labels, 3)
    sides = [np.hstack([side, np.full((seeds, 1), value)]) for side, value in ((paired.run, 3), (paired.baseline, 0))]
    assert ComparisonResult.from_predictions(PairedPredictions(labels, *sides, 4)).classes[3].p_value == 1


def exact_tail(over_seeds: float, over_samples: float, seeds: int, distance: float) -> float:
    """Return the tail probability by adaptive integration over the quantiles of Student's distribution."""

    def beyond(probability: float) -> float:
        return norm.sf((distance - over_seeds**0.5 * t.isf(probability, seeds - 1)) / over_samples**0.5)

    parts = [quad(beyond, a, b, limit=400, epsabs=1e-13)[0] for a, b in pairwise([0, 1e-9, 1e-6, 1e-3, 0.1, 1])]
    return float(sum(parts))


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("ratio", [1e-15, 1e-8, 1e-3, 0.01, 0.1, 0.9, 1.1, 10])
def test_seeds_that_hardly_differ_give_a_smooth_p_value(ratio, seeds):
    """The tail probability is exact for any ratio of the two errors: no grid shows."""
    for deviations in (0.5, 1.96, 1.98, 2.0, 3.5):
        found = SeedSampleVariance(0.0, (ratio * 0.003) ** 2, 0.003**2, seeds).tail_probability(0.003 * deviations)
        assert found == pytest.approx(exact_tail(ratio**2, 1.0, seeds, deviations), rel=1e-5)


def test_equal_differences_in_all_seeds_count_as_equal():
    """Rounding makes them 1e-17 apart. The p-value is that of differences without a variance, sample by sample."""
    values = np.zeros((3, 10_000))
    found = []
    for ahead in range(7, 80, 8):
        values[:, :ahead] = 1
        found.append(SeedSampleVariance.from_values(values))
        rounded = found[-1].difference * np.array([1, 1 + 2e-16, 1 - 3e-16])
        other = SeedSampleVariance.from_covariance(rounded, np.cov(values) / 10_000, 10_000)
        assert other.p_value() == pytest.approx(found[-1].p_value(), rel=1e-9)
        assert found[-1].p_value() == pytest.approx(2 * norm.sf(ahead / 1e4 / found[-1].over_samples ** 0.5), rel=1e-9)
    p_values = [one.p_value() for one in found]
    assert p_values == sorted(p_values, reverse=True) and len({*p_values}) == len(p_values)


def scores(seeds: int, samples: int, shift: float, scale: float = 1.0) -> PairedScores:
    """Return scores of two groups, of which the run's are higher on average."""
    generator = np.random.default_rng(seeds)
    shared, *noise = generator.normal(size=samples), *(generator.normal(size=(2, seeds, samples)))
    return PairedScores(*(scale * (shared + 0.3 * one + by) for one, by in zip(noise, (shift, 0), strict=True)), "r")


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize(("shift", "word"), [(0.2, "better"), (-0.2, "worse"), (0, "no difference")])
def test_scores_are_compared_in_any_unit(seeds, shift, word) -> None:
    """The verdict follows the mean difference, and neither it nor the p-value depends on the unit of the scores."""
    verdicts = [
        make_verdicts([ComparisonResult.from_scores(scores(seeds, 200, shift, scale))])[0] for scale in (1, 1e-4)
    ]
    assert [verdict.word for verdict in verdicts] == [word, word]
    one, other = (verdict.result for verdict in verdicts)
    assert one.p_value == pytest.approx(other.p_value)
    for name in ("difference", "low", "high"):
        assert getattr(one.score, name) == pytest.approx(1e4 * getattr(other.score, name))
    assert one.smallest_difference(1) == pytest.approx(1e4 * other.smallest_difference(1))
    assert "in r (95 % interval" in verdicts[0].format_sentence("A", "B")


@pytest.mark.parametrize("seeds", [1, 3])
def test_scores_of_right_and_wrong_are_accuracies(seeds) -> None:
    """For 0 and 1, the interval of scores is about that of the same predictions compared as classes."""
    paired = noisy(seeds, 300, 3)
    sides = ((side == paired.labels).astype(float) for side in (paired.run, paired.baseline))
    one, other = ComparisonResult.from_scores(PairedScores(*sides, "right")), ComparisonResult.from_predictions(paired)
    assert one.score.difference == pytest.approx(other.score.difference)
    assert (one.score.low, one.score.high) == pytest.approx((other.score.low, other.score.high), abs=0.01)


def test_equal_scores_show_no_difference() -> None:
    """Two groups with the same scores have p = 1 and an interval around 0, that isn't empty."""
    found = ComparisonResult.from_scores(PairedScores(*2 * [np.ones((1, 50))], "r"))
    assert found.p_value == 1
    assert found.score.low < 0 < found.score.high


def test_the_interval_for_any_time_is_over_seeds_and_never_of_width_zero() -> None:
    """It is that of the seeds' mean differences, in the score's unit; there is none of one seed, or an infinite one."""
    pair = noisy(6, 200, 3)
    found = ComparisonResult.from_paired(pair).time_uniform_interval
    assert found == anytime_interval(pair.differences.mean(1), 1 / 200)
    assert ComparisonResult.from_paired(noisy(1, 200, 3)).time_uniform_interval is None
    assert ComparisonResult.from_paired(noisy(2, 200, 3)).time_uniform_interval == (-np.inf, np.inf)
    same = replace(pair, baseline=pair.run)
    low, high = ComparisonResult.from_paired(same).time_uniform_interval or (0, 0)
    assert high == -low == pytest.approx(0.0097, abs=1e-3)


def test_equal_scores_leave_some_difference_undetected() -> None:
    """Two identical runs never claim that a true difference of 0 would have shown."""
    zeros = np.zeros((1, 100))
    verdict = make_verdicts([ComparisonResult.from_paired(PairedScores(zeros, zeros, "score"))])[0]
    assert (verdict.smallest_difference or 0) > 0.01
    assert "a true difference of 0 " not in verdict.format_sentence("a", "b")


@pytest.mark.parametrize("value", [-0.0, -0.0004, 0.0004, 0.0])
def test_zero_has_no_minus(value) -> None:
    """A difference that rounds to zero is +0.0, whatever its sign, and a score of minus zero is 0."""
    points, numbers = (ComparisonResult.from_paired(paired) for paired in (noisy(1, 60, 3), scores(1, 60, 0)))
    assert format_difference(value, points) == "+0.0"
    assert format_difference(0 * value, numbers) == "+0"
    assert format_score(0 * value, numbers) == "0"
