"""The summary of a search has its history, the importance of its keys and a map of two of them."""

import json
from pathlib import Path

import pytest

from microstep.sweep.summary.reading import read_sweep
from microstep.sweep.summary.search import compute_importance, read_trials
from microstep.sweep.summary.story import list_facts
from microstep.sweep.summary.study import SweepTable, tabulate
from microstep.sweep.summary.write import write_summary

pytest.importorskip("optuna")
LOG = "tag(log,interval(1e-3,1))"


def search_of(directory: Path, trials: int = 12, **study: object) -> SweepTable:
    """Write a search whose score depends on lr alone, and return its table; the third trial was pruned."""
    jobs = {}
    for number in range(trials):
        name, rate = f"trial-{number}", 0.001 * 1.7**number
        jobs[name] = {"overrides": [f"optimizer.lr={rate}", f"model={('mlp', 'small_cnn')[number % 2]}", "seed=0"]}
        metrics = {"val": {"accuracy": 0.5 + 0.01 * number}}
        record = {"status": "finished", "monitor": "accuracy", "direction": "max", "epoch": 1, "metrics": metrics}
        (directory / name).mkdir()
        pruned = {"pruned": {"epoch": 1}} if number == 2 else {}
        (directory / name / "run.json").write_text(json.dumps(record | pruned))
    keys = {"optimizer.lr": LOG, "model": "mlp,small_cnn"}
    found = {"kind": "search", "objective": "accuracy", "direction": "max", "keys": keys, "repeats": 1}
    content = {"name": "s", "command": "train", "jobs": jobs, "study": found | {"order": [*jobs], **study}}
    (directory / "sweep.json").write_text(json.dumps(content))
    return tabulate(read_sweep(directory))


def test_trials_are_read_in_the_order_in_which_they_were_proposed(tmp_path: Path) -> None:
    """A trial that was pruned has no score, also if it was resumed later."""
    trials = read_trials(search_of(tmp_path))
    assert trials.number == 12
    assert list(trials.scores) == [1, 2, *range(4, 13)]
    assert trials.log_keys == {"optimizer.lr"}


def test_a_trial_is_the_mean_over_all_of_its_runs(tmp_path: Path) -> None:
    """One run of two that was pruned leaves the trial without a score."""
    trials = read_trials(search_of(tmp_path, repeats=2))
    assert trials.number == 6
    assert trials.scores == pytest.approx({1: 0.505, 3: 0.545, 4: 0.565, 5: 0.585, 6: 0.605})


def test_settings_are_ranked_by_the_objective(tmp_path: Path) -> None:
    """It may be another metric than the one that chose the checkpoints. The searched values are shown as typed."""
    search_of(tmp_path, objective="loss", direction="min")
    for number in range(12):
        file = tmp_path / f"trial-{number}" / "run.json"
        content = json.loads(file.read_text())
        content["metrics"]["val"]["loss"] = abs(number - 5)
        file.write_text(json.dumps(content))
    table = tabulate(read_sweep(tmp_path))
    assert [group.val.values for group in table.groups[:2]] == [(0,), (1,)]
    assert (table.groups[0].runs[0].name, len(table.scored_runs)) == ("trial-5", 12)
    assert dict(list_facts(table))["optimizer.lr, swept"] == LOG


def test_a_setting_that_has_lost_a_seed_is_not_ranked(tmp_path: Path) -> None:
    """A trial whose other run was pruned or diverged has no mean, so the run that is left does not represent it."""
    search_of(tmp_path, 4, repeats=2)
    content = json.loads((tmp_path / "sweep.json").read_text())
    for name, (rate, seed) in zip(content["jobs"], [(1, 0), (1, 1), (2, 0), (2, 1)], strict=True):
        content["jobs"][name]["overrides"] = [f"optimizer.lr={rate}", f"seed={seed}"]
    (tmp_path / "sweep.json").write_text(json.dumps(content))
    broken = tmp_path / "trial-3" / "run.json"
    broken.write_text(json.dumps(json.loads(broken.read_text()) | {"status": "failed", "diverged": True}))
    assert [group.label for group in tabulate(read_sweep(tmp_path)).groups] == ["optimizer.lr=1"]
    write_summary(tmp_path, html=False)
    summary = (tmp_path / "summary.md").read_text()
    assert "Failures" in summary
    assert "The same command runs just these" not in summary


@pytest.mark.parametrize("direction", ["max", "min"])
def test_the_history_shows_the_best_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direction: str) -> None:
    """The line rises with the scores if higher is better, and stays at the first if lower is."""
    drawn: list[float] = []
    monkeypatch.setattr("matplotlib.axes.Axes.step", lambda self, x, y, **style: drawn.extend(map(float, y)))
    search_of(tmp_path, direction=direction)
    write_summary(tmp_path)
    assert (drawn[0], drawn[-1]) == pytest.approx((0.5, 0.61 if direction == "max" else 0.5))


def test_the_key_that_decides_is_the_most_important(tmp_path: Path) -> None:
    """Shares sum to 1, and are the same to the last bit if computed again; with few trials none is told."""
    trials = read_trials(search_of(tmp_path))
    shares = compute_importance(trials)
    assert compute_importance(trials) == shares
    assert list(shares) == ["optimizer.lr", "model"]
    assert sum(shares.values()) == pytest.approx(1)
    (tmp_path / "few").mkdir()
    assert compute_importance(read_trials(search_of(tmp_path / "few", 7))) == {}


def test_the_page_has_history_and_map_instead_of_main_effects(tmp_path: Path) -> None:
    """The same files make the same bytes."""
    search_of(tmp_path)
    write_summary(tmp_path)
    page = (tmp_path / "summary.html").read_bytes()
    assert b"History: 11 of 12 trials have a score" in page
    assert b"optimizer.lr and model: a dot is a trial" in page
    assert b"Main effects" not in page
    assert "Importance, the share of a key" in (tmp_path / "summary.md").read_text()
    write_summary(tmp_path)
    assert (tmp_path / "summary.html").read_bytes() == page


@pytest.mark.parametrize(
    "study", [{"order": 3}, {"repeats": "x"}, {"keys": [1]}, {"order": ["../x", 5]}, {"keys": {"model": LOG}}]
)
def test_a_damaged_description_stops_no_summary(tmp_path: Path, study: dict[str, object]) -> None:
    """Nothing in sweep.json is trusted."""
    search_of(tmp_path, **study)
    write_summary(tmp_path)
    assert (tmp_path / "summary.html").exists()
