"""evaluate.py: reproduces the report of a run byte for byte, or fails with one line."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from microstep.config.allowlist import ALLOW_ALL
from microstep.errors import CheckpointRefused, ConfigError, DataError, StorageError
from microstep.evaluation.evaluate import evaluate_run
from microstep.run.checkpoints.checkpoints import Checkpoints
from microstep.run.progress import Progress
from microstep.run.weights import WeightsFile
from microstep.utils.progress_bar import ProgressBars
from tests.conftest import call, error_of
from tests.faults.runs import manifest_of

TEXTS = ("classification_report.txt", "classification_report.json", "confusion_matrix.csv", "predictions.csv")
Refusals = dict[str, "subprocess.CompletedProcess[str]"]


def texts(directory: Path) -> dict[str, bytes]:
    return {name: (directory / name).read_bytes() for name in TEXTS}


def again(run: Path, split: str = "test", checkpoint: str = "best"):
    """Evaluate in this process."""
    return evaluate_run(run, split, checkpoint, ALLOW_ALL, None, ProgressBars(False))


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy of the finished run, alone in its directory."""
    return shutil.copytree(trained, tmp_path / "run")


def with_worse_last(run: Path) -> Path:
    """Add a last checkpoint whose model predicts the same class for every input."""
    checkpoints = Checkpoints(run / "checkpoints")
    state = checkpoints.load("best")
    for value in state["model"].values():
        value.zero_()
    checkpoints.save(state, Progress(epoch=4, optimizer_steps=92), best=False)
    checkpoints.wait()
    return run


def edited(run: Path, old: str, new: str) -> Path:
    """Change a line of the run's config."""
    text = (run / "config.yaml").read_text()
    assert text.count(old) == 1
    (run / "config.yaml").write_text(text.replace(old, new))
    return run


def test_the_test_report_is_written_again_byte_for_byte(run):
    """A new process writes the report of the training from the run directory alone, and makes no other directory."""
    before = texts(run / "reports" / "test")
    shutil.rmtree(run / "reports")
    done = call("evaluate.py", "run=run", cwd=run.parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert texts(run / "reports" / "test") == before
    assert before["classification_report.txt"].decode().rstrip() in done.stdout
    assert [path.name for path in run.parent.iterdir()] == ["run"]


def test_only_what_evaluates_is_built(run):
    """A step, a gradient transform or an average that is gone, or not trusted, does not hinder an evaluation."""
    edited(run, "microstep.components.step.StandardStep", "gone.Step")
    edited(run, "microstep.components.gradient.Identity", "gone.Transform")
    edited(run, "microstep.components.average.NoAverage", "gone.Average")
    assert again(run).result.metrics["accuracy"] > 0.5


def test_the_rest_of_a_run_is_left_as_it_was(run):
    """Evaluation writes into reports/ and changes no other file of the run."""
    kept = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and "reports" not in path.parts}
    again(run, "val")
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and "reports" not in path.parts}
    assert after == kept


def test_the_training_split_can_be_evaluated_too(zygote, run):
    """`split=train` reports all 1437 samples, unshuffled, and prints the accuracy that it writes."""
    done = zygote.call("evaluate.py", f"run={run}", "split=train", cwd=run.parent)
    assert done.returncode == 0, done.stderr
    with (run / "reports" / "train" / "predictions.csv").open() as stream:
        indices = [int(row["index"]) for row in csv.DictReader(stream)]
    assert len(indices) == 1437
    assert indices == sorted(indices)
    scores = json.loads((run / "reports" / "train" / "classification_report.json").read_text())
    assert f"accuracy {scores['accuracy']:.4f}" in done.stdout


def test_the_last_checkpoint_has_a_report_of_its_own(run):
    """`checkpoint=last` loads the last checkpoint, writes to test-last, and keeps the report of the best."""
    before = texts(with_worse_last(run) / "reports" / "test")
    done = again(run, checkpoint="last")
    assert (done.directory, done.epoch) == (run / "reports" / "test-last", 4)
    last = json.loads((run / "reports" / "test-last" / "classification_report.json").read_text())
    assert last["accuracy"] == done.result.metrics["accuracy"] == pytest.approx(0.1, abs=0.01)
    assert texts(run / "reports" / "test") == before


def test_the_weights_for_others_give_the_same_report(zygote, run):
    """`checkpoint=model.safetensors` needs no checkpoint and gives the report of the best in its own directory."""
    before = texts(run / "reports" / "test")
    shutil.rmtree(run / "checkpoints")
    done = zygote.call("evaluate.py", "run=run", "checkpoint=model.safetensors", cwd=run.parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert texts(run / "reports" / "test-model") == texts(run / "reports" / "test") == before
    assert "checkpoint  model.safetensors, of epoch 3\n" in done.stdout


def other_model(file: Path) -> None:
    """Replace the weights by valid ones of another model."""
    WeightsFile(file, {"architecture": "{}"}).write(torch.nn.Linear(2, 2), 1, {})


def flipped(file: Path) -> None:
    """Flip a bit of the last weight, which safetensors itself does not detect."""
    content = bytearray(file.read_bytes())
    content[-1] ^= 4
    file.write_bytes(content)


def device_file(file: Path) -> None:
    """Replace the file by a pipe, which would block a reader forever."""
    file.unlink()
    os.mkfifo(file)


DAMAGES = {
    "missing": (Path.unlink, "it is not there; it is written when a run finishes"),
    "no file": (device_file, "it is not there"),
    "empty": (lambda file: file.write_bytes(b""), "it can't be read: "),
    "text": (lambda file: file.write_text("no weights, and more than eight bytes"), "it can't be read: "),
    "cut off": (lambda file: file.write_bytes(file.read_bytes()[:-100]), "it can't be read: "),
    "huge header": (lambda file: file.write_bytes(b"\xff" * 7 + b"\x7f" + file.read_bytes()[8:]), "it can't be read: "),
    "flipped": (flipped, "its checksum is not the one in its header"),
    "not ours": (
        lambda file: save_file(load_file(file), file),
        "it can't be read: it is not the model.safetensors of a run",
    ),
    "another model": (other_model, "it is not this model's: "),
}


@pytest.mark.parametrize(("damage", "said"), DAMAGES.values(), ids=DAMAGES)
def test_weights_that_are_not_what_was_written_are_refused(run, damage, said):
    """Weights that are missing, not a file, cut off, changed by one bit or of another model: exit 6, and no report."""
    damage(run / "model.safetensors")
    with pytest.raises(CheckpointRefused) as caught:
        again(run, checkpoint="model.safetensors")
    assert str(caught.value).startswith(f"{run / 'model.safetensors'}: {said}")
    assert caught.value.exit_code == 6
    assert not (run / "reports" / "test-model").exists()


@pytest.fixture(scope="module")
def refusals(zygote, trained, tmp_path_factory) -> Refusals:
    """Results of the program for invalid arguments."""
    home = tmp_path_factory.mktemp("refusals")
    for name in ("sound", "flipped"):
        shutil.copytree(trained, home / name)
    file = home / "flipped" / "checkpoints" / manifest_of(home / "flipped")["best"]["file"]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)
    words = {"split": ("run=sound", "split=tset"), "run": ("run=nowhere",), "bit": ("run=flipped",)}
    (home / "flipped" / "model.safetensors").write_bytes(b"cut off")
    words["weights"] = ("run=flipped", "checkpoint=model.safetensors")
    done = {name: zygote.call("evaluate.py", *typed, cwd=home) for name, typed in words.items()}
    assert sorted(path.name for path in home.iterdir()) == ["flipped", "sound"]
    assert not (home / "sound" / "reports" / "tset").exists()
    return done


CASES = [
    ("split", 2, "error: split=tset: "),
    ("run", 2, "error: run=nowhere: "),
    ("bit", 6, "checksum"),
    ("weights", 6, "error: flipped/model.safetensors: it can't be read: "),
]


@pytest.mark.parametrize(("name", "code", "said"), CASES, ids=[case[0] for case in CASES])
def test_what_can_not_be_evaluated_is_one_line_and_its_exit_code(refusals, name, code, said):
    """An unknown split or run, or a flipped bit: one line on stderr names it, and stdout is empty."""
    assert refusals[name].returncode == code
    assert said in error_of(refusals[name])
    assert refusals[name].stdout == ""


def test_a_misspelt_split_names_the_options(run):
    """The error lists the splits, and no report directory is made."""
    with pytest.raises(ConfigError, match="the options are train, val, test"):
        again(run, "../escape")
    assert not (run / "escape").exists()


@pytest.mark.parametrize("damage", ["", "{}", '{"data": {}}', "null", None])
def test_a_run_without_a_sound_run_json_is_refused(run, damage):
    """Without the fingerprint of the data, nobody can check that they are unchanged."""
    (run / "run.json").unlink()
    if damage is not None:
        (run / "run.json").write_text(damage)
    with pytest.raises(ConfigError, match=r"run\.json is missing or damaged"):
        again(run)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("split_seed: 0", "split_seed: 1"),
        ("val_samples: 180", "val_samples: 190"),
        ("test_samples: 180", "test_samples: 90"),
    ],
)
def test_changed_data_are_exit_2(run, old, new):
    """Data with another split are different data: the evaluation is refused, and the report is unchanged."""
    before = texts(run / "reports" / "test")
    with pytest.raises(DataError, match="the data have changed since the run") as caught:
        again(edited(run, old, new))
    assert caught.value.exit_code == 2
    assert texts(run / "reports" / "test") == before


def test_how_it_is_executed_makes_no_difference(run):
    """Another batch size changes no prediction, and therefore no score."""
    before = texts(run / "reports" / "test")
    again(edited(run, "batch_size: 64", "batch_size: 3"))
    after = texts(run / "reports" / "test")
    assert {name: after[name] for name in TEXTS[:3]} == {name: before[name] for name in TEXTS[:3]}


def test_a_report_that_can_not_be_written_is_a_failure_of_storage(run):
    """A file with the directory's name is exit 4, like every storage failure."""
    shutil.rmtree(run / "reports")
    (run / "reports").write_text("in the way")
    with pytest.raises(StorageError):
        again(run)
