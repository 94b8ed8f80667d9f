"""Folds are paired with each other, and the interval is corrected for their overlapping training sets."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t

from microstep.errors import ConfigError
from microstep.evaluation.comparison.groups import GroupPair, RunGroup, group_runs, pair_by_seed
from microstep.evaluation.comparison.paired import Folds
from microstep.evaluation.comparison.predictions_file import SavedPredictions
from microstep.evaluation.comparison.results import ComparisonResult
from microstep.evaluation.comparison.runs import ReportedRun
from microstep.evaluation.comparison.text import format_seeds
from microstep.run.record import RunRecord
from microstep.run.saved_run import SavedRun
from microstep.utils.repeats import variance_of_mean

CLASSES = ("a", "b", "c")
LABELS = np.arange(60) % 3


def reported(seed: int, fold: int, accuracy: float, indices: np.ndarray, draw: int) -> ReportedRun:
    """Return a run of one of 3 folds that is right so often."""
    generator = np.random.default_rng([draw, seed, fold])
    right = generator.permutation(len(indices)) < accuracy * len(indices)
    labels = LABELS[indices]
    predictions = np.where(right, labels, (labels + 1) % 3)
    report = SavedPredictions(indices, labels, predictions, np.ones(len(indices)), None, CLASSES)
    record = RunRecord.of({"data": {"samples": {"train": 40, "val": 20}}})
    saved = SavedRun(Path(f"{draw}-{seed}-{fold}"), record, "run")
    return ReportedRun(saved, seed, {"dataset.fold": fold}, {}, 1, "data", report, "last")


def groups(accuracies: tuple[list[float], list[float]], seeds: int = 1, own: bool = True) -> GroupPair:
    """Return two groups over 3 folds, each with its own validation samples, or with those of one test split."""
    rows = [np.arange(fold, 60, 3) if own else np.arange(60) for fold in range(3)]
    sides = [
        [reported(seed, fold, side[fold], rows[fold], draw) for seed in range(seeds) for fold in range(3)]
        for draw, side in enumerate(accuracies)
    ]
    run, baseline = (RunGroup(tuple(sorted(side, key=lambda one: one.seed))) for side in sides)
    return pair_by_seed(run, baseline)


@pytest.mark.parametrize("seeds", [1, 2])
def test_folds_of_other_samples_are_paired_fold_by_fold(seeds) -> None:
    """On validation the interval is that of Nadeau and Bengio by hand, over the folds' own samples."""
    result = ComparisonResult.from_paired(groups(([0.9, 0.8, 0.95], [0.8, 0.75, 0.7]), seeds).paired)
    differences = np.array([0.1, 0.05, 0.25])
    half_width = t.ppf(0.975, 2) * (differences.var(ddof=1) * (1 / 3 + 20 / 40)) ** 0.5
    assert result.score.difference == pytest.approx(differences.mean())
    assert result.score.high - result.score.difference == pytest.approx(half_width, rel=0.02)  # and a sample's share
    assert (result.paired.seeds, result.paired.samples) == (seeds, 60)
    assert result.time_uniform_interval is None


def test_folds_on_the_test_split_are_corrected_too() -> None:
    """On samples that all folds share, the interval is wider than without the correction, by the overlap."""
    pair = groups(([0.9, 0.8, 0.95], [0.8, 0.75, 0.7]), seeds=2, own=False)
    result = ComparisonResult.from_paired(pair.paired)
    folds = pair.paired.folds
    assert folds is not None
    assert (folds.count, folds.overlap, folds.pooled, pair.paired.seeds) == (3, 0.5, False, 6)
    uncorrected = ComparisonResult.from_paired(
        type(pair.paired)(*(getattr(pair.paired, name) for name in ("labels", "run", "baseline", "classes")), None)
    )
    width, narrow = (one.score.high - one.score.low for one in (result, uncorrected))
    assert width > 1.2 * narrow


def test_a_class_that_a_fold_lacks_is_compared_in_the_others() -> None:
    """Classes have p-values of their own even if only some folds have samples of them."""
    folds = Folds(np.array([[0, 0, 1, 1, 1, 1]]), 0.5)
    pair = groups(([0.9, 0.8, 0.95], [0.8, 0.75, 0.7])).paired
    part = type(pair)(np.array([0, 0, 1, 1, 0, 1]), np.zeros((1, 6), int), np.ones((1, 6), int), 2, folds)
    found = {one.label: one.p_value for one in ComparisonResult.from_paired(part).classes}
    assert found[1] == 1
    assert 0 <= found[0] <= 1


def test_folds_that_one_seed_lacks_are_named() -> None:
    """Seeds with other folds have no common samples; the error says what to do."""
    pair = groups(([0.9] * 3, [0.8] * 3), seeds=2)
    sides = [
        RunGroup(tuple(one for one in side.runs if one.seed != "1 of fold 2")) for side in (pair.run, pair.baseline)
    ]
    with pytest.raises(ConfigError, match="the folds of seeds 0, 1 do not have the same samples, each once"):
        pair_by_seed(*sides)


def missed(differences: np.ndarray, truth: float, overlap: float) -> float:
    """Return the share of data sets whose 95 % interval over folds misses the truth."""
    half_widths = t.ppf(0.975, 4) * np.sqrt([variance_of_mean(row, overlap) for row in differences])
    return float((np.abs(differences.mean(1) - truth) > half_widths).mean())


def test_folds_as_alike_as_their_training_sets_are_covered() -> None:
    """If folds correlate by the share of validation samples, as in the paper, 95 % hold; uncorrected under 88 %."""
    generator = np.random.default_rng(0)
    shared, own = generator.standard_normal((4000, 1)), generator.standard_normal((4000, 5))
    differences = 0.2**0.5 * shared + 0.8**0.5 * own
    assert 0.04 < missed(differences, 0, 0.25) < 0.06
    assert missed(differences, 0, 0.0) > 0.12


def test_learners_on_overlapping_training_sets_are_covered() -> None:
    """The difference in loss of two estimators of a mean, over 5 folds of 2,000 data sets, is covered in 95 %."""
    data = np.random.default_rng(0).standard_normal((2000, 5, 20))
    rows = []
    for fold in range(5):
        train, val = np.delete(data, fold, 1).reshape(2000, -1), data[:, fold]
        means, medians = (estimate(train, axis=1, keepdims=True) for estimate in (np.mean, np.median))
        rows.append(((val - means) ** 2 - (val - medians) ** 2).mean(1))
    differences = np.stack(rows, 1)
    truth = float(differences.mean())
    assert missed(differences, truth, 0.25) <= 0.05 < missed(differences, truth, 0.0)


def test_folds_are_counted_and_sorted_by_number() -> None:
    """The page has their number with that of repeats, not a list; what is left out is listed, 2 before 10."""
    runs = [
        replace(reported(seed, fold, 0.9, np.arange(60), 0), division={"dataset.repeat": repeat, "dataset.fold": fold})
        for seed, repeat, fold in product((1, 0), (1, 0), (10, 2))
    ]
    (group,) = group_runs(runs, "run")
    assert format_seeds(pair_by_seed(group, group)) == "4 folds (2 folds × 2 repeats), seeds 0, 1"
    assert [one.division["dataset.fold"] for one in group.runs[:3]] == [2, 10, 2]
    assert format_seeds(groups(([0.9] * 3, [0.8] * 3))) == "3 folds, seed 0"


def test_folds_that_one_side_lacks_are_left_out(caplog) -> None:
    """A warning names them, 2 before 10, and the others are compared."""
    (group,) = group_runs([reported(0, fold, 0.9, np.arange(fold, 60, 12), 0) for fold in (10, 2, 1, 0)], "run")
    pair = pair_by_seed(group, RunGroup(group.runs[:2]))
    assert format_seeds(pair) == "2 folds, seed 0"
    assert "left out: 0 of fold 2, 0 of fold 10" in caplog.text


def test_single_runs_of_two_folds_are_not_paired() -> None:
    """One run of a fold is not compared with one of another, whose samples are not its own; the way out is a fold."""
    group = groups(([0.9] * 3, [0.8] * 3)).run
    one, other = (RunGroup(group.runs[fold : fold + 1]) for fold in (0, 1))
    unfolded = RunGroup((replace(group.first, division={}),))
    again = RunGroup((replace(group.first, division={"dataset.repeat": 1, "dataset.fold": 0}),))
    later = RunGroup((replace(group.first, config_seed=7),))
    assert way_out(one, other) == "train both on the same folds: -m dataset.fold=1, with the same dataset.folds"
    assert way_out(again, one).endswith(": -m dataset.fold=0 dataset.repeat=0, with the same dataset.folds")
    assert way_out(group, unfolded) == way_out(unfolded, group)
    assert way_out(group, unfolded).endswith(": -m dataset.fold=0,1,2, with the same dataset.folds")
    assert way_out(later, group) == "train both with the same seeds: -m seed=0,1,2"


def way_out(run: RunGroup, baseline: RunGroup) -> str:
    """Return the remedy of the error that the two groups have no repeat in common."""
    with pytest.raises(ConfigError, match="have none in common") as caught:
        pair_by_seed(run, baseline)
    return str(caught.value.args[2])
