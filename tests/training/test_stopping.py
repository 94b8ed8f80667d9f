"""Runs that end before their last epoch."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from microstep.config.compose import compose
from microstep.errors import ConfigError
from microstep.training.build import build_trainer
from microstep.training.resume import resume
from tests.conftest import call, error_of, fit
from tests.faults.interruptions import stop_at
from tests.faults.runs import differences, metrics_of, state_of
from tests.faults.zygote import Zygote

COMMON = ("model=mlp", "threads=1", "progress=false", "epochs=9", "log_every_steps=5")
PLATEAU = (*COMMON, "optimizer.lr=1e-12", "stop=patience", "stop.epochs=3")  # nothing is learned: it ends after 4
STOPPED = {"by": "patience of 3 epochs", "epoch": 4}


def record_of(run: Path) -> dict:
    return json.loads((run / "run.json").read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that stops after 4 of 9 epochs."""
    run = tmp_path_factory.mktemp("whole") / "run"
    fit(PLATEAU, run)
    return run


def test_a_run_that_learns_nothing_stops(whole: Path) -> None:
    """It is finished and reported on like any other; run.json has the reason and the epoch."""
    record = record_of(whole)
    assert (record["status"], record["stopped"], record["epoch"], record["epochs"]) == ("finished", STOPPED, 4, 9)
    assert len(metrics_of(whole)) == 4
    assert state_of(whole, "last")["progress"]["stopped"] == STOPPED["by"]
    assert (whole / "reports" / "test" / "predictions.csv").exists()
    assert (whole / "model.safetensors").exists()


@pytest.mark.parametrize("lost", [False, True])
def test_an_interrupted_run_stops_after_the_same_epoch(whole: Path, tmp_path: Path, lost: bool) -> None:
    """The patience that is left is part of a checkpoint."""
    stop_at(build_trainer(compose(PLATEAU), tmp_path / "run"), 30, lost)
    stop_at(resume(tmp_path / "run"), 80, lost)
    resume(tmp_path / "run").fit()
    assert differences(tmp_path / "run", whole) == []
    assert record_of(tmp_path / "run")["stopped"] == STOPPED


def test_a_run_that_dies_before_its_report_trains_no_further(zygote: Zygote, tmp_path: Path) -> None:
    """It is killed between the decision and the report: resumed, it reports on the same weights."""
    words = (*PLATEAU, "task._target_=tests.training.dying_report.DyingReport", "hydra.run.dir=run")
    (tmp_path / "die").touch()
    assert zygote.run("train.py", *words, cwd=tmp_path) == -signal.SIGKILL
    (tmp_path / "die").unlink()
    before = state_of(tmp_path / "run", "last")
    assert (before["progress"]["epoch"], before["progress"]["stopped"]) == (4, STOPPED["by"])
    resume(tmp_path / "run").fit()
    assert state_of(tmp_path / "run", "last")["progress"] == before["progress"]
    assert (record_of(tmp_path / "run")["status"], record_of(tmp_path / "run")["stopped"]) == ("finished", STOPPED)


@pytest.mark.parametrize("status", ["finished", "running"])
def test_a_stopped_run_gets_no_more_epochs(whole: Path, tmp_path: Path, status: str) -> None:
    """A longer run would have stopped as well. The line says what to do instead."""
    for name in ("config.yaml", "run.json"):
        (tmp_path / name).write_text((whole / name).read_text())
    (tmp_path / "run.json").write_text(json.dumps(record_of(whole) | {"status": status}))
    with pytest.raises(ConfigError) as caught:
        resume(tmp_path, ["epochs=20"])
    reason = "the run has stopped: patience of 3 epochs; start a new run with another stop="
    assert str(caught.value) == f"epochs=20: {reason}"


def test_a_budget_is_replayed_by_its_epoch(tmp_path: Path) -> None:
    """`stop=at` ends with the same bits; both schedules span all epochs."""
    words = ("model=mlp", "threads=1", "progress=false", "epochs=500")
    fit([*words, "stop=budget", "stop.minutes=0.004"], tmp_path / "budget")
    stopped = record_of(tmp_path / "budget")["stopped"]
    assert stopped["by"] == "budget of 0.004 minutes" and 1 <= stopped["epoch"] < 500
    fit([*words, "stop=at", f"stop.epoch={stopped['epoch']}"], tmp_path / "at")
    assert differences(tmp_path / "budget", tmp_path / "at") == []


def test_a_budget_counts_earlier_processes(tmp_path: Path) -> None:
    """The seconds of a checkpoint are spent."""
    words = (*COMMON, "stop=budget", "stop.minutes=10")
    trainer = build_trainer(compose(words), tmp_path / "run")
    trainer.progress.seconds = 599.0
    stop_at(trainer, 30)
    trainer = resume(tmp_path / "run")
    assert trainer.progress.seconds > 599
    trainer.progress.seconds += 1
    trainer.fit()
    assert record_of(tmp_path / "run")["stopped"] == {"by": "budget of 10 minutes", "epoch": 2}


def test_the_monitored_metric_chooses_and_stops(tmp_path: Path) -> None:
    """Best checkpoint, run.json and the printed epochs follow the typed metric: the smallest accuracy, say."""
    words = (*COMMON, "monitor=min:accuracy", "stop=patience", "stop.epochs=2")
    results = fit(words, tmp_path / "run")
    rows = [float(row["val_accuracy"]) for row in metrics_of(tmp_path / "run")]
    assert results.best_epoch == 1 and rows[0] == min(rows) == results.val["accuracy"]
    record = record_of(tmp_path / "run")
    assert (record["monitor"], record["direction"], record["stopped"]["epoch"]) == ("accuracy", "min", 3)


def test_the_monitored_metric_is_shown(tmp_path: Path, capsys) -> None:
    """Beside loss and accuracy; why a run stopped is a line of its own."""
    fit([*PLATEAU, "monitor=f1_macro"], tmp_path / "run")
    lines = capsys.readouterr().out.splitlines()
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert len(epochs) == 4 and all(" f1_macro " in line.partition("  val loss ")[2] for line in epochs)
    assert "stopped after epoch 4 of 9: patience of 3 epochs" in lines
    assert "  monitor        f1_macro" in lines


def test_a_plateau_lowers_the_rate(tmp_path: Path) -> None:
    """After each validation that is no better, also if the run died and was resumed between two of them."""
    words = ["model=mlp", "threads=1", "progress=false", "epochs=4", "scheduler=plateau", "scheduler.patience=0"]
    words += ["monitor=min:accuracy"]  # it gets worse and worse
    fit(words, tmp_path / "whole")
    rates = [float(row["lr"]) for row in metrics_of(tmp_path / "whole")]
    assert rates == pytest.approx([0.03, 0.03, 0.003, 0.0003])
    stop_at(build_trainer(compose(words), tmp_path / "run"), 30)
    stop_at(resume(tmp_path / "run"), 80, lost=True)
    resume(tmp_path / "run").fit()
    assert differences(tmp_path / "run", tmp_path / "whole") == []


def test_a_wrong_metric_ends_before_the_training(tmp_path: Path) -> None:
    """In one line with the options, and no directory is left."""
    done = call("train.py", "monitor=acuracy", "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 2
    options = "loss, accuracy, f1_macro, f1_weighted, nll"
    assert error_of(done) == f"error: monitor=acuracy: the task has no such metric; the options are {options}"
    assert not (tmp_path / "run").exists()


def test_epochs_and_steps_exclude_each_other(zygote: Zygote, tmp_path: Path) -> None:
    done = call("train.py", "epochs=3", "steps=9", cwd=tmp_path)
    assert (done.returncode, error_of(done)) == (2, "error: epochs=3: steps sets it; give one of the two")
