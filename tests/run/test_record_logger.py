"""run.json is true at every moment: running until it is over, then finished, interrupted or failed, and why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from microstep.config.compose import compose
from microstep.errors import CheckpointRefused, ConfigError, DataError, Diverged, Stopped, StorageError
from microstep.run.lock import lock_directory
from microstep.run.record_logger import RunRecordLogger
from microstep.training.build import build_trainer
from microstep.types.data import Report
from microstep.types.events import EpochReport, Results, SavingCost, SplitResult
from tests.conftest import files_limited, fit

QUICK = ["model=mlp", "epochs=1"]


def read(directory: Path) -> dict:
    """Return run.json as strict JSON: NaN and Infinity are no part of that."""

    def refuse(word: str) -> float:
        raise AssertionError(f"{word} is no JSON")

    return json.loads((directory / "run.json").read_text(encoding="utf-8"), parse_constant=refuse)


def epoch(number: int, accuracy: float, best: bool) -> EpochReport:
    return EpochReport(
        epoch=number,
        epochs=9,
        optimizer_steps=10 * number,
        samples_seen=100 * number,
        skipped_steps=1,
        train={"loss": 1.0},
        val={"loss": 2.0, "accuracy": accuracy},
        lr=0.1,
        samples_per_second=55.55,
        seconds=1.0,
        best=best,
    )


def test_it_says_running_from_the_start(tmp_path):
    """The file exists before anything is built, so a run that died early is known."""
    record = RunRecordLogger(tmp_path, lock_directory(tmp_path))
    with record.record_build_failure():
        assert read(tmp_path) == {"status": "running", "error": None}
        record.update(device="cpu")
    assert read(tmp_path) == {"status": "running", "error": None, "device": "cpu"}


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (None, "finished", None),
        (Stopped(15), "interrupted", "stopped by SIGTERM"),
        (KeyboardInterrupt(), "interrupted", "stopped by SIGINT"),
        (Diverged("epoch 3", "it is NaN", "lower the rate"), "failed", "epoch 3: it is NaN; lower the rate"),
        (ZeroDivisionError("by zero"), "failed", "ZeroDivisionError: by zero"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_it_says_how_the_run_ended(tmp_path, error, status, said):
    """Finished; interrupted by a signal, and which; or failed, with the line that the terminal got."""
    record = RunRecordLogger(tmp_path, lock_directory(tmp_path))
    record.update()
    record.close(error)
    assert (read(tmp_path)["status"], read(tmp_path)["error"]) == (status, said)


@pytest.mark.parametrize(
    ("error", "resumable"),
    [
        (StorageError("metrics.csv", "No space left on device", "free some space"), True),
        (DataError("train/a.jpg", "it is gone", "put it back"), True),
        (OSError(24, "Too many open files"), True),
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (Diverged("epoch 3", "it is NaN", "lower the rate"), False),
        (CheckpointRefused("checkpoints", "it is not this run's", "start a new run"), False),
        (ZeroDivisionError("by zero"), False),
        (SystemExit(3), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_it_says_whether_a_failed_run_may_go_on(tmp_path, error, resumable):
    """It may, unless it diverged or its own code raised the error."""
    RunRecordLogger(tmp_path, lock_directory(tmp_path)).close(error)
    assert read(tmp_path)["resumable"] is resumable


def test_a_long_error_is_cut(tmp_path):
    """run.json stays a file that is small enough to be read."""
    RunRecordLogger(tmp_path, lock_directory(tmp_path)).close(RuntimeError("a long text, " * 200_000))
    assert len(read(tmp_path)["error"]) == 2000


def test_the_directory_is_given_back_when_it_is_closed(tmp_path):
    """The lock is released even if the record itself cannot be written."""
    lock = lock_directory(tmp_path)
    record = RunRecordLogger(tmp_path, lock)
    with files_limited(10), pytest.raises(StorageError):
        record.close(None)
    assert not lock.is_locked


def test_what_is_known_of_a_run_that_is_taken_up_stays(tmp_path):
    """A resumed run starts with the facts of its run.json, except for how it ended."""
    before = {"status": "failed", "error": "epoch 3: it is NaN; lower the rate", "epoch": 2, "device": "cpu"}
    RunRecordLogger(tmp_path, lock_directory(tmp_path), before).update(device="cuda")
    assert read(tmp_path) == {"status": "running", "error": None, "epoch": 2, "device": "cuda"}


def test_it_keeps_up_with_the_epochs(tmp_path):
    """Counts are those of the last epoch, `best` is that of the best one."""
    record = RunRecordLogger(tmp_path, lock_directory(tmp_path))
    for report in (epoch(1, 0.5, True), epoch(2, 0.75, True), epoch(3, 0.25, False)):
        record.epoch(report)
    found = read(tmp_path)
    assert (found["status"], found["epoch"], found["optimizer_steps"]) == ("running", 3, 30)
    assert (found["samples_seen"], found["skipped_steps"], found["samples_per_second"]) == (300, 1, 55.5)
    assert found["metrics"] == {"best": {"epoch": 2, "loss": 2.0, "accuracy": 0.75}}


@pytest.mark.parametrize("peak", [2**30, None])
def test_the_results_are_added_to_what_is_known(tmp_path, peak):
    """Validation and test metrics of the best checkpoint are stored beside those of the best epoch."""
    record = RunRecordLogger(tmp_path, lock_directory(tmp_path))
    record.epoch(epoch(1, 0.5, True))
    splits = {name: SplitResult({"accuracy": value}, Report("")) for name, value in (("val", 0.5), ("test", 0.4))}
    saving = SavingCost(saves=3, bytes=1000, pause_seconds=0.123456, write_seconds=2.0)
    record.finish(Results(tmp_path, 1, 10, 0, 100, 1.23456, peak, saving, splits))
    found = read(tmp_path)
    assert found["metrics"]["best"]["epoch"] == 1
    assert (found["metrics"]["val"], found["metrics"]["test"]) == ({"accuracy": 0.5}, {"accuracy": 0.4})
    assert found["train_seconds"] == 1.235
    assert found["checkpoints"] == {"saves": 3, "bytes": 1000, "pause_seconds": 0.1235, "write_seconds": 2.0}
    assert found["peak_memory_bytes"] == peak


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_json_has_no_number_for_is_null(tmp_path, value):
    """A NaN metric does not make the file unreadable for strict parsers."""
    record = RunRecordLogger(tmp_path, lock_directory(tmp_path))
    record.epoch(epoch(1, value, True))
    assert read(tmp_path)["metrics"]["best"]["accuracy"] is None


def test_names_in_any_script_stay_readable(tmp_path):
    """The file is UTF-8, not escapes."""
    RunRecordLogger(tmp_path, lock_directory(tmp_path)).update(command="python train.py dataset.root=データ")
    assert "データ" in (tmp_path / "run.json").read_text(encoding="utf-8")


def test_a_run_that_diverges_is_failed_with_the_reason(tmp_path):
    """If the learning rate is far too high, the record has the exception's line and the facts known so far."""
    with pytest.raises(Diverged) as caught:
        fit([*QUICK, "optimizer.lr=1e30"], tmp_path / "run")
    found = read(tmp_path / "run")
    assert (found["status"], found["error"]) == ("failed", str(caught.value))
    assert "lower optimizer.lr" in found["error"]
    assert found["effective_batch_size"] == 64


@pytest.mark.parametrize(
    ("typed", "kind"), [("task.class_weights=[1,2]", ConfigError), ("dataset.val_samples=3", DataError)]
)
def test_a_run_that_can_not_be_built_is_failed_too(tmp_path, typed, kind):
    """An error that only the data reveal is recorded before the first epoch, so that a sweep can report it."""
    with pytest.raises(kind) as caught:
        build_trainer(compose([typed, "threads=1"]), tmp_path / "run")
    assert (read(tmp_path / "run")["status"], read(tmp_path / "run")["error"]) == ("failed", str(caught.value))


def test_a_directory_that_holds_a_run_is_refused(trained):
    """A second run never overwrites the first: its record and all other files stay as they are."""
    before = (trained / "run.json").read_bytes()
    with pytest.raises(ConfigError, match="it holds a run already"):
        build_trainer(compose([*QUICK, "threads=1"]), trained)
    assert (trained / "run.json").read_bytes() == before
