"""The leaderboard marks the settings that the runs don't tell apart from the best."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_rel

from microstep.run.record import RunRecord
from microstep.run.saved_run import SavedRun
from microstep.sweep.summary.best import compare_with_best, compute_p_value
from microstep.sweep.summary.reading import SweepRun
from microstep.sweep.summary.study import SweepTable
from microstep.sweep.summary.write import write_summary
from tests.sweep.summary.sweeps import plant_sweep

FOLDS = {"samples": {"train": 400, "val": 100}}


def table(scores: np.ndarray, repeat: str = "seed", direction: str = "max", **facts: object) -> SweepTable:
    """Return a sweep of settings × repeats."""
    runs, rows = [], {}
    for (setting, number), score in np.ndenumerate(scores):
        content = {"metrics": {"val": {"m": score}}, "monitor": "m", "direction": direction, **facts}
        name = f"{setting}_{number}"
        if np.isfinite(score):
            runs.append(SweepRun(name, SavedRun(Path(name), RunRecord.of(content), "run"), {}, "finished", ""))
            rows[name] = {"lr": str(setting), repeat: str(number)}
    return SweepTable("s", "", tuple(runs), ("lr", repeat), rows, "m", direction)


@pytest.mark.parametrize("direction", ["max", "min"])
def test_the_p_value_is_scipys(direction) -> None:
    """Seeds are paired, in the direction of the metric."""
    scores = np.random.default_rng(0).normal(size=(2, 6)) + np.array([[1], [0]])
    found = table(scores if direction == "max" else -scores, direction=direction)
    expected = ttest_rel(scores[0], scores[1], alternative="greater").pvalue
    assert compute_p_value(found, found.groups[1]) == pytest.approx(expected)


@pytest.mark.parametrize("settings", [2, 8])
def test_of_equal_settings_the_true_best_stays_marked(settings) -> None:
    """Of settings that are equally good, one chosen in advance is called worse in at most 5 % of sweeps."""
    generator, worse = np.random.default_rng(1), 0
    for _ in range(600):
        scores = generator.normal(size=(settings, 4)) + generator.normal(size=4)
        found = table(scores)
        labels = [group.label for group in found.groups]
        worse += compare_with_best(found)[labels.index("lr=0")] == "worse"
    assert worse <= 0.05 * 600 + 2 * (0.05 * 0.95 * 600) ** 0.5


def test_a_worse_setting_is_told_apart_and_one_without_common_seeds_is_not_tested() -> None:
    """Words are best, worse, undecided, or a dash without two common seeds."""
    noise = np.array([0.0, 0.01, -0.01, 0.02])
    rows = [0.9 + noise, 0.895 - noise, 0.7 + 1.3 * noise, np.array([0.6, np.nan, np.nan, np.nan])]
    assert compare_with_best(table(np.stack(rows))) == ("best", "undecided", "worse", "–")


def test_equal_differences_of_two_seeds_prove_nothing() -> None:
    """Two seeds that differ by the same single step have no variance of their own, but one step is no proof."""
    assert compare_with_best(table(np.array([[0.92, 0.94], [0.91, 0.93]]))) == ("best", "undecided")


def test_folds_are_held_to_more_than_seeds() -> None:
    """The same scores over folds have a larger p-value, by the overlap of their training sets."""
    scores = np.random.default_rng(3).normal(size=(2, 5)) + np.array([[1], [0]])
    over_seeds, over_folds = (table(scores, key, data=FOLDS) for key in ("seed", "dataset.fold"))
    p_seeds, p_folds = (compute_p_value(found, found.groups[1]) for found in (over_seeds, over_folds))
    assert (p_seeds or 0) < (p_folds or 0)


@pytest.mark.parametrize("key", ["dataset.folds", "dataset.split_seed", "dataset.test_samples", "dataset"])
def test_scores_on_other_samples_are_not_paired(key) -> None:
    """Settings whose validation samples differ can't be told apart, though their seeds and folds have equal numbers."""
    scores = np.random.default_rng(3).normal(size=(2, 5)) + np.array([[9], [0]])
    found = table(scores, "dataset.fold", data=FOLDS)
    assert compare_with_best(found) == ("best", "worse")
    rows = {name: {key: str(4 + int(row["lr"])), **row} for name, row in found.rows.items()}
    assert compare_with_best(replace(found, keys=(key, *found.keys), rows=rows)) == ("best", "–")


def test_the_page_says_what_is_undecided(tmp_path) -> None:
    """The leaderboard has a column and a caption, and the caution counts the undecided; one run each has neither."""
    scores = {"fp32": (0.9, 0.93, 0.96), "amp": (0.91, 0.95, 0.94), "fp64": (0.5, 0.51, 0.53)}
    grid = {"precision": list(scores), "seed": [0, 1, 2]}
    plant_sweep(tmp_path, grid, lambda values: scores[values["precision"]][int(values["seed"])])
    write_summary(tmp_path, html=False)
    text = (tmp_path / "summary.md").read_text()
    assert "These runs don't tell 1 other setting apart from the best" in text
    assert "| undecided |" in text
    assert "| worse |" in text
