"""The length of a run in optimizer steps, and validations that do not wait for the end of an epoch."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean

import pytest

from microstep.config.compose import compose
from microstep.run.progress import Progress
from microstep.training.build import build_trainer
from microstep.training.periods import Periods
from microstep.training.resume import resume
from tests.conftest import fit
from tests.faults.interruptions import stop_at
from tests.faults.runs import differences, manifest_of, metrics_of, same, scalars_of, state_of

COMMON = ("model=mlp", "model.dropout=0.2", "threads=1", "progress=false", "log_every_steps=5", "augment=crop_flip")
STREAMED = ("dataset.resident=false", "num_workers=2")
PERIODS = (*COMMON, "steps=50", "validate_every_steps=15", "scheduler=plateau", "scheduler.patience=0")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 50 steps, two epochs of 23 and a part of the third, that is validated at 15, 30, 45 and 50."""
    run = tmp_path_factory.mktemp("whole") / "run"
    fit(PERIODS, run)
    return run


def test_a_run_by_steps_is_the_run_by_epochs(tmp_path: Path) -> None:
    """With the steps of three epochs, validated at the end of each, no bit differs, nor do the logs."""
    fit([*COMMON, "epochs=3"], tmp_path / "epochs")
    fit([*COMMON, "steps=69", "validate_every_steps=23"], tmp_path / "steps")
    assert differences(tmp_path / "steps", tmp_path / "epochs") == []


def test_when_it_validates_changes_no_weight(tmp_path: Path) -> None:
    """Order, augmentation and dropout are those of the passes over the data, wherever a validation comes between."""
    fit([*COMMON, "epochs=2"], tmp_path / "epochs")
    fit([*COMMON, "epochs=2", "validate_every_steps=7"], tmp_path / "often")
    fit([*COMMON, "steps=46", "validate_every_steps=100"], tmp_path / "once")
    last = [state_of(tmp_path / run, "last") for run in ("epochs", "often", "once")]
    assert all(same(last[0][part], one[part]) for one in last[1:] for part in ("model", "optimizer", "scheduler"))
    assert [row["optimizer_steps"] for row in metrics_of(tmp_path / "often")] == [
        "7",
        "14",
        "21",
        "28",
        "35",
        "42",
        "46",
    ]
    assert [row["epoch"] for row in metrics_of(tmp_path / "once")] == ["1"]


def test_a_run_ends_at_its_last_step(whole: Path) -> None:
    """The last epoch ends early. What is called an epoch in files ends with a validation."""
    assert [row["optimizer_steps"] for row in metrics_of(whole)] == ["15", "30", "45", "50"]
    assert [row["epoch"] for row in metrics_of(whole)] == ["1", "2", "3", "4"]
    record = json.loads((whole / "run.json").read_text())
    assert (record["epoch"], record["epochs"], record["optimizer_steps"]) == (4, 4, 50)
    assert manifest_of(whole)["last"]["optimizer_steps"] == 50


def test_training_metrics_are_of_the_steps_since_the_last_validation(tmp_path: Path) -> None:
    """The loss of an epoch in metrics.csv and TensorBoard is the mean of its steps, all of 64 images here."""
    words = [word for word in COMMON if "log_every" not in word]
    fit([*words, "log_every_steps=1", "epochs=1", "validate_every_steps=7"], tmp_path / "run")
    tags = ("train/loss", "train_epoch/loss")
    steps, epochs = ([float(value) for _, value in scalars_of(tmp_path / "run")[tag]] for tag in tags)
    assert epochs[:3] == pytest.approx([fmean(steps[first : first + 7]) for first in (0, 7, 14)])


def test_the_workers_change_nothing(whole: Path, tmp_path: Path) -> None:
    """Images that are streamed by two processes, or by none, are read ahead up to the next validation."""
    for number in (0, 2):
        fit([*PERIODS, "dataset.resident=false", f"num_workers={number}"], tmp_path / f"run{number}")
        assert differences(tmp_path / f"run{number}", whole) == []


@pytest.mark.parametrize("lost", [False, True])
def test_it_is_resumed_between_any_two_steps(whole: Path, tmp_path: Path, lost: bool) -> None:
    """Before and after a validation, within a pass and at its end, by a signal or after the process has died."""
    run = tmp_path / "run"
    stop_at(build_trainer(compose([*PERIODS, "checkpoint.every_steps=4"]), run), 9, lost)
    for windows in (15, 23, 31, 46, 49):
        stop_at(resume(run), windows, lost)
    resume(run).fit()
    assert differences(run, whole) == []


def test_more_steps_are_the_run_of_so_many(whole: Path, tmp_path: Path) -> None:
    """If the shorter run ends with a validation of the longer one."""
    words = [*COMMON, "validate_every_steps=15", "scheduler=constant"]
    fit([*words, "steps=45"], tmp_path / "longer")
    fit([*words, "steps=30"], tmp_path / "run")
    resume(tmp_path / "run", ["steps=45"]).fit()
    assert differences(tmp_path / "run", tmp_path / "longer") == []


@pytest.mark.parametrize("total", [1, 10, 23, 50, 69, 100])
@pytest.mark.parametrize("period", [1, 7, 23, 30, 46, 200])
def test_the_parts_of_all_periods_are_the_run(total: int, period: int) -> None:
    """Each window of each pass is in one part, in order; a period is never longer than asked, and none is empty."""
    periods, progress, seen = Periods(total, period, 23), Progress(), list[tuple[int, int]]()
    for epoch in range(1, periods.count(progress) + 1):
        before = len(seen)
        seen += [(number, index) for number, first, last in periods.parts(progress) for index in range(first, last)]
        assert 0 < len(seen) - before <= period
        progress.windows, progress.epoch = len(seen), epoch
        assert periods.count(progress) == -(-total // period)
    assert seen == [(window // 23 + 1, window % 23) for window in range(total)]
