"""Run directories made by version 0.1.0 keep working: they are evaluated, compared and resumed by today's code.

`finished`, `interrupted` and `sweep` are what these commands left behind, less images, event files and logs::

    python train.py SAME epochs=2 hydra.run.dir=finished
    python train.py SAME epochs=2 hydra.run.dir=interrupted      # stopped by SIGTERM after epoch 1
    python train.py -m SAME epochs=1 seed=0,1 hydra.sweep.dir=sweep

They must never be made anew. The source has changed since, so a resume warns that the run is not the same bit for bit.
"""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from PIL import Image

from microstep.config.compose import compose
from microstep.run.checkpoints.checkpoints import Checkpoints
from microstep.training import provenance as identity

OLD = Path(__file__).parent
SAME = ("model=mlp", "model.hidden=[8]", "scheduler=constant", "threads=1", "progress=false")
COMPONENTS = ("precision", "accumulation", "step", "dataset", "sampler", "augment", "model", "task", "scheduler")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a directory with copies of the old runs."""
    for name in ("finished", "interrupted", "sweep"):
        shutil.copytree(OLD / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def call(zygote, home: Path):
    """Return a function that runs a program beside the copies and requires success."""

    def called(program: str, *words: str) -> CompletedProcess[str]:
        done = zygote.call(program, *words, cwd=home)
        assert done.returncode == 0, done.stderr
        return done

    return called


def record_of(run: Path) -> dict:
    return json.loads((run / "run.json").read_text())


def epochs_of(run: Path) -> list[str]:
    with (run / "metrics.csv").open(newline="") as stream:
        return [row["epoch"] for row in csv.DictReader(stream)]


def accuracy_of(run: Path, report: str) -> float:
    return json.loads((run / "reports" / report / "classification_report.json").read_text())["accuracy"]


def test_the_targets_are_those_of_the_release() -> None:
    """The stored configs use the target names of 0.1.0: if they were made anew, nothing here would be tested."""
    config = (OLD / "finished" / "config.yaml").read_text()
    assert all(f"_target_: microstep.{component}." in config for component in COMPONENTS)


@pytest.mark.parametrize(
    ("checkpoint", "report"), [("best", "test"), ("last", "test-last"), ("model.safetensors", "test-model")]
)
def test_an_old_run_is_evaluated(call, home: Path, checkpoint: str, report: str) -> None:
    """All three kinds of weights give the accuracy that the run reported."""
    run = home / "finished"
    shutil.rmtree(run / "reports")
    call("evaluate.py", "run=finished", f"checkpoint={checkpoint}")
    assert accuracy_of(run, report) == pytest.approx(record_of(run)["metrics"]["test"]["accuracy"], abs=0.02)


def test_an_old_run_predicts(call, home: Path) -> None:
    """It classifies an image of a folder."""
    (home / "images").mkdir()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(home / "images" / "one.png")
    call("evaluate.py", "run=finished", "input=images")
    assert (home / "finished" / "reports" / "input-images" / "predictions.csv").read_text().count("one.png") == 1


def test_old_runs_are_compared(call) -> None:
    """The runs of a sweep, which differ only in the seed, are one side of a comparison."""
    said = call("evaluate.py", "run=sweep/*", "baseline=finished").stdout
    assert "outputs/comparisons/" in said
    assert call("evaluate.py", "run=sweep/*seed-0*", "baseline=sweep/*seed-1*").stdout.count("seed") > 1


def test_an_interrupted_old_run_is_resumed(call, home: Path) -> None:
    """It resumes after its first epoch, and finishes."""
    call("train.py", "resume=interrupted")
    assert (record_of(home / "interrupted")["status"], epochs_of(home / "interrupted")) == ("finished", ["1", "2"])


def test_an_old_run_is_resumed_with_more_epochs(call, home: Path) -> None:
    """An old run accepts the overrides of any resume: its schedule is known to be constant."""
    call("train.py", "resume=finished", "epochs=3", "model=mlp", "model.hidden=[8]")
    assert (record_of(home / "finished")["epochs"], epochs_of(home / "finished")) == (3, ["1", "2", "3"])


def test_the_command_of_an_old_run_goes_on_with_it(call, home: Path) -> None:
    """`resume=auto` accepts today's description of the experiment as that of the run."""
    call("train.py", *SAME, "epochs=2", "hydra.run.dir=interrupted", "resume=auto")
    assert epochs_of(home / "interrupted") == ["1", "2"]
    said = call("train.py", *SAME, "epochs=2", "hydra.run.dir=finished", "resume=auto").stdout
    assert "finished" in said
    assert "resumed" not in record_of(home / "finished")


def test_another_experiment_is_still_refused(zygote, home: Path) -> None:
    """`resume=auto` with another model is an error."""
    words = (*SAME, "model.dropout=0.1", "epochs=2", "hydra.run.dir=interrupted", "resume=auto")
    done = zygote.call("train.py", *words, cwd=home)
    assert done.returncode == 2
    assert "this is another experiment: model.dropout=0.1 (it has 0.0)" in done.stderr


@pytest.mark.parametrize("name", ["finished", "interrupted"])
def test_hashes_of_old_runs_still_fit(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The same experiment described today has the hashes in an old run.json and checkpoint, but for the source."""
    record, config = record_of(OLD / name), compose([*SAME, "epochs=2"])
    monkeypatch.setattr(identity, "source_hash", lambda config: record["source_hash"])
    assert identity.experiment_hash(config, record["data"]["fingerprint"]) == record["experiment_hash"]
    assert identity.config_hash(config) == Checkpoints(OLD / name / "checkpoints").load("last")["run"]["config"]
