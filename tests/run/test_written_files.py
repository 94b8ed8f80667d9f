"""A run leaves every documented file, each with true content, and no others."""

from __future__ import annotations

import csv
import json
import re
from hashlib import sha256
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import OmegaConf
from sklearn.datasets import load_digits

from microstep.config.compose import compose
from microstep.training.builders import build_components
from microstep.training.provenance import experiment_hash

TYPED = ["epochs=3", "log_every_steps=5"]
REPORT = {
    "calibration.csv",
    "classification_report.txt",
    "classification_report.json",
    "confusion_matrix.csv",
    "confusion_matrix.png",
    "predictions.csv",
    "reliability.png",
    "scores.csv",
    "worst_mistakes.png",
}
FACTS = {
    "status",
    "error",
    "epoch",
    "optimizer_steps",
    "samples_seen",
    "effective_batch_size",
    "precision",
    "device",
    "world_size",
    "parameters",
    "monitor",
    "direction",
    "train_seconds",
    "samples_per_second",
    "peak_memory_bytes",
    "metrics",
    "checkpoints",
    "experiment_hash",
    "files",
    "versions",
    "git",
    "working_directory",
    "command",
    "choices",
}


@pytest.fixture
def record(trained) -> dict:
    """The run's run.json."""
    return json.loads((trained / "run.json").read_text())


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_every_file_is_there_and_none_besides(trained):
    """The run directory holds exactly the documented files."""
    listed = {"config.yaml", ".hydra", "train.log", "run.json", "metrics.csv", "checkpoints", "reports"}
    listed |= {".lock", ".lock.holder"}
    (events,) = trained.glob("events.out.tfevents.*")
    assert names(trained) == listed | {events.name, "model.safetensors"}
    assert names(trained / ".hydra") == {"config.yaml", "hydra.yaml", "overrides.yaml"}
    assert names(trained / "reports") == {"val", "test"}
    assert names(trained / "reports" / "val") == names(trained / "reports" / "test") == REPORT
    assert names(trained / "checkpoints") == {"manifest.json", "epoch-0002.pt", "epoch-0003.pt"}


def test_a_run_is_one_line_in_tensorboard(trained):
    """The only event file is in the run directory itself, so the browser shows no sub-run."""
    assert [file.parent for file in trained.rglob("events.out.tfevents.*")] == [trained]


def test_the_program_leaves_nothing_outside_its_run_directory(trained):
    """Next to the run there is only what the test put there."""
    assert names(trained.parent) == {"run", "stdout.txt"}


def test_config_yaml_is_the_experiment_as_composed(trained):
    """Unresolved: references are still references, so that the file says what was meant."""
    stored = yaml.safe_load((trained / "config.yaml").read_text())
    assert stored == OmegaConf.to_container(compose(TYPED), resolve=False)
    assert stored["accumulation"]["micro_batches"] == "${accum}"


def test_hydras_own_record_is_there(trained):
    """Hydra's config is the same as ours, and its list of overrides is what was typed."""
    own, hydras = (yaml.safe_load((trained / part / "config.yaml").read_text()) for part in (".", ".hydra"))
    assert hydras == own
    assert yaml.safe_load((trained / ".hydra" / "overrides.yaml").read_text()) == TYPED


def test_run_json_has_every_key(record):
    """Whoever reads runs by script finds each of the documented keys, and the metrics of all three kinds."""
    assert set(record) >= FACTS
    assert set(record["precision"]) >= {"name", "dtype", "scaler"}
    assert set(record["metrics"]) == {"best", "val", "test"}
    assert set(record["git"]) == {"commit", "dirty"}
    assert set(record["versions"]) >= {"python", "torch", "torchvision", "numpy", "scikit-learn", "hydra-core"}


def test_run_json_counts_right(record):
    """Three epochs of 1437 samples in windows of 64 are 69 optimizer steps and 4311 samples."""
    assert (record["status"], record["error"]) == ("finished", None)
    assert (record["epoch"], record["optimizer_steps"], record["samples_seen"]) == (3, 69, 4311)
    assert (record["effective_batch_size"], record["world_size"]) == (64, 1)
    assert [record["precision"][key] for key in ("name", "dtype", "scaler")] == ["fp32", "float32", False]
    model = build_components(compose([*TYPED, "threads=1"])).model
    assert record["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert record["versions"]["torch"] == torch.__version__.split("+")[0]


def test_run_json_measures_something(record):
    """Time, speed and memory are numbers of a plausible size, and the speed fits samples and time."""
    assert 0 < record["train_seconds"] < 300
    assert record["samples_per_second"] > record["samples_seen"] / record["epochs"] / record["train_seconds"]
    assert 50e6 < record["peak_memory_bytes"] < 50e9
    assert record["device"].startswith("cpu") or "cuda" in record["device"]


def test_run_json_tells_what_saving_cost(record, trained):
    """A save an epoch; the bytes of the last; how long training stood still, which is little of the run."""
    manifest = json.loads((trained / "checkpoints" / "manifest.json").read_text())
    saving = record["checkpoints"]
    assert (saving["saves"], saving["bytes"]) == (3, manifest["last"]["bytes"])
    assert 0 < saving["pause_seconds"] < record["train_seconds"]


def test_the_command_is_what_was_typed(record):
    """It can be pasted into a shell: the program and every word after it."""
    assert record["command"].endswith("train.py epochs=3 log_every_steps=5 hydra.run.dir=run")


def test_the_options_are_those_chosen(record):
    """Each group of the experiment has its option by name; Hydra's own groups are left out."""
    assert record["choices"]["model"] == "small_cnn"
    assert record["choices"]["precision"] == "fp32"
    assert not any(group.startswith("hydra") for group in record["choices"])


def test_outside_a_repository_git_is_null(record):
    """The run was started where there is no repository: nothing is made up, and nothing was printed about it."""
    assert record["git"] == {"commit": None, "dirty": None}


def test_the_hash_is_the_experiments(record):
    """It can be computed again from the experiment and the data; how it is executed is no part of it."""
    data = record["data"]["fingerprint"]
    assert record["experiment_hash"] == experiment_hash(compose(["epochs=3"]), data)
    neutral = ["epochs=3", "num_workers=2", "progress=false", "log_every_steps=1", "sweep=some"]
    assert record["experiment_hash"] == experiment_hash(compose(neutral), data)
    for other in (["epochs=4"], ["epochs=3", "seed=1"], ["epochs=3", "optimizer.lr=0.031"]):
        assert record["experiment_hash"] != experiment_hash(compose(other), data)
    assert record["experiment_hash"] != experiment_hash(compose(["epochs=3"]), "0" * 64)


def test_metrics_csv_has_the_documented_columns(trained):
    """A row an epoch under one header; steps count up, and every value is a number."""
    with (trained / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == [
        "epoch",
        "optimizer_steps",
        "train_loss",
        "val_loss",
        "val_accuracy",
        "val_f1_macro",
        "val_f1_weighted",
        "val_nll",
        "lr",
        "samples_per_second",
        "seconds",
    ]
    assert [(row["epoch"], row["optimizer_steps"]) for row in rows] == [("1", "23"), ("2", "46"), ("3", "69")]
    assert all(float(value) > 0 for row in rows for value in row.values())


def test_the_manifest_tells_the_truth(trained):
    """Size and SHA-256 of each checkpoint are those of its file; the last is of the last epoch and step."""
    manifest = json.loads((trained / "checkpoints" / "manifest.json").read_text())
    assert set(manifest) == {"last", "previous", "best"}
    for entry in manifest.values():
        content = (trained / "checkpoints" / entry["file"]).read_bytes()
        assert set(entry) == {"file", "sha256", "bytes", "epoch", "window", "optimizer_steps"}
        assert (entry["bytes"], entry["sha256"]) == (len(content), sha256(content).hexdigest())
    assert [manifest[which]["epoch"] for which in ("last", "previous")] == [3, 2]
    assert [manifest[which]["optimizer_steps"] for which in ("last", "previous")] == [69, 46]


def test_the_best_epoch_is_the_same_everywhere(trained, record):
    """metrics.csv, run.json and the manifest agree on which epoch was best by validation accuracy."""
    with (trained / "metrics.csv").open() as stream:
        best = max(csv.DictReader(stream), key=lambda row: (float(row["val_accuracy"]), int(row["epoch"])))
    manifest = json.loads((trained / "checkpoints" / "manifest.json").read_text())
    assert record["metrics"]["best"]["epoch"] == manifest["best"]["epoch"] == int(best["epoch"])
    assert record["metrics"]["best"]["accuracy"] == record["metrics"]["val"]["accuracy"] == float(best["val_accuracy"])


@pytest.mark.parametrize("split", ["val", "test"])
def test_predictions_are_of_the_split_itself(trained, split):
    """A row a sample: its index in the official data, with the label it has there, and a confidence."""
    with (trained / "reports" / split / "predictions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["index", "label", "prediction", "confidence"]
    assert len({row["index"] for row in rows}) == len(rows) == 180
    target = load_digits().target
    assert all(int(row["label"]) == target[int(row["index"])] for row in rows)
    assert all(0.1 <= float(row["confidence"]) <= 1 for row in rows)


def test_the_log_has_all_that_the_terminal_had(trained):
    """Every line that was printed is in train.log, with the time; there is no escape sequence in it."""
    log, shown = (trained / "train.log").read_text(), (trained.parent / "stdout.txt").read_text()
    assert all(line in log for line in shown.splitlines())
    assert re.search(r"^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+\]\[INFO\] epoch 1/3 ", log, re.MULTILINE)
    assert "\x1b" not in log
    assert "\r" not in log


def test_no_temporary_file_is_left(trained):
    """Files are written beside their place and moved there: none stays behind."""
    assert [path for path in trained.rglob("*") if path.name.endswith(".tmp")] == []
