"""When a checkpoint is due; and that it changes no bit when it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from microstep.config.compose import compose
from microstep.run.checkpoints import checkpoints as cadence
from microstep.run.checkpoints.checkpoints import CheckpointSchedule
from microstep.training.build import build_trainer
from microstep.training.trainer import Trainer
from tests.conftest import fit
from tests.faults.runs import differences, manifest_of, state_of

WORDS = ("model=mlp", "model.dropout=0.2", "threads=1", "progress=false", "epochs=3")


def test_by_default_a_run_saves_after_each_epoch() -> None:
    """And never in mid-epoch."""
    due = CheckpointSchedule()
    assert all(due.is_due_after_epoch(epoch) for epoch in range(1, 9))
    assert not any(due.is_due_after_window(window) for window in range(1, 1000))


def test_every_so_many_epochs_and_steps() -> None:
    """Counted over the whole run from its start, so that a resume finds the same moments."""
    due = CheckpointSchedule(every_epochs=3, every_steps=4)
    assert [epoch for epoch in range(1, 10) if due.is_due_after_epoch(epoch)] == [3, 6, 9]
    assert [window for window in range(1, 13) if due.is_due_after_window(window)] == [4, 8, 12]


def test_every_so_many_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted from the last save of any kind; a wall clock that is set changes nothing."""
    now = [1000.0]
    monkeypatch.setattr(cadence, "monotonic", lambda: now[0])
    due = CheckpointSchedule(every_minutes=1.5)
    now[0] += 89.9
    assert not due.is_due_after_window(1)
    now[0] += 0.2
    assert due.is_due_after_window(2)
    due.restart_timer()
    assert not due.is_due_after_window(3)
    now[0] += 90
    assert due.is_due_after_window(4)


def places(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Train; return where the run stood at each save."""
    saved, save = [], trainer.checkpoints.save

    def noted(state, progress, best, logs):
        saved.append(str(progress.position))
        save(state, progress, best, logs)

    monkeypatch.setattr(trainer.checkpoints, "save", noted)
    trainer.fit()
    return saved


def test_the_best_and_the_last_are_saved_in_any_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every_epochs=9 a run of three epochs that doesn't get better after the first saves twice."""
    words = [*WORDS, "checkpoint.every_epochs=9", "scheduler=constant", "optimizer.lr=1e-12"]
    trainer = build_trainer(compose(words), tmp_path / "run")
    values = iter([0.5, 0.4, 0.3])
    evaluate = trainer.evaluate
    monkeypatch.setattr(trainer, "evaluate", lambda name: evaluate(name) | {"accuracy": next(values)})
    assert places(trainer, monkeypatch) == ["epoch 1", "epoch 3"]
    assert manifest_of(tmp_path / "run")["best"]["epoch"] == 1
    assert manifest_of(tmp_path / "run")["last"]["epoch"] == 3


def test_in_mid_epoch_it_is_saved_where_it_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every_steps=20, of 23 windows an epoch, after windows 20, 40 and 60 and after each epoch."""
    trainer = build_trainer(compose([*WORDS, "checkpoint.every_steps=20"]), tmp_path / "run")
    steps = ["epoch 1, window 20", "epoch 1", "epoch 2, window 17", "epoch 2", "epoch 3, window 14", "epoch 3"]
    assert places(trainer, monkeypatch) == steps


def test_how_often_it_saves_changes_no_bit(tmp_path: Path) -> None:
    """A checkpoint after each window: the same weights, logs and reports as with the default; the same experiment."""
    fit(WORDS, tmp_path / "seldom")
    fit([*WORDS, "checkpoint.every_steps=1", "checkpoint.every_minutes=0.001"], tmp_path / "often")
    assert differences(tmp_path / "often", tmp_path / "seldom") == []
    identities = [state_of(tmp_path / name, "last")["run"]["experiment"] for name in ("often", "seldom")]
    assert identities[0] == identities[1]
