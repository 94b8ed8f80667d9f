"""Whole runs of multi-label classification and regression."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from sklearn.datasets import load_digits

from microstep.config.compose import compose
from microstep.training.build import build_trainer
from microstep.training.resume import resume
from microstep.training.trainer import Trainer
from tests.components.task.targets import labels_of
from tests.conftest import error_of
from tests.faults.interruptions import stop_at
from tests.faults.runs import metrics_of
from tests.tasks.weights import last_weights, relative

CONF = ("--config-dir", str(Path(__file__).parent / "conf"))
LABELS = ("task=multilabel", "dataset=labeled_digits", "model=mlp")
NUMBERS = ("task=regression", "dataset=numbered_digits", "model=mlp", "max_grad_norm=1")
TASKS = pytest.mark.parametrize("words", [LABELS, NUMBERS], ids=["labels", "numbers"])


ABSOLUTE = "negative_absolute_error"


def metadata_of(run: Path) -> dict[str, str]:
    with safe_open(run / "model.safetensors", "pt") as file:
        return file.metadata()


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture(scope="module")
def home(zygote, tmp_path_factory) -> Path:
    """Return a directory with finished runs of both tasks, with two seeds each, and a folder of the test images."""
    home = tmp_path_factory.mktemp("home")
    for name, words in {"labels": LABELS, "numbers": NUMBERS}.items():
        for seed in (0, 1):
            extra = ("epochs=3", f"seed={seed}", f"hydra.run.dir={name}{seed}")
            done = zygote.call("train.py", *CONF, *words, *extra, cwd=home)
            assert done.returncode == 0, done.stderr
    (home / "in").mkdir()
    for index in range(0, 100, 5):
        pixels = np.round(load_digits().images[index] * 255 / 16).astype(np.uint8)
        Image.fromarray(pixels).save(home / "in" / f"{index:03}.png")
    return home


OWN_LOSS = "task.loss={_target_: torch.nn.SmoothL1Loss, reduction: none}"
EXTRAS = {
    "plain": (),
    "balanced": ("sampler=balanced",),
    "mixed": ("augment=mixup", "sampler=balanced"),
    "own loss": (OWN_LOSS,),
}
OPTIONS = {LABELS: "task.pos_weight=[1,2,3]", NUMBERS: "task.loss=huber"}


@TASKS
@pytest.mark.parametrize("extra", EXTRAS.values(), ids=EXTRAS)
def test_runs_do_not_depend_on_the_cut(zygote, tmp_path, words, extra) -> None:
    """64 × 1 and 16 × 4 train the same weights in fp64, with unknown labels, balanced and mixed."""
    option = () if OWN_LOSS in extra else (OPTIONS[words],)
    small = ("precision=fp64", "epochs=2", "dataset.samples=300", "dataset.val_samples=40")
    common = (*words, *extra, *option, *small)
    for name, cut in {"whole": ("batch_size=64",), "cut": ("batch_size=16", "accum=4")}.items():
        done = zygote.call("train.py", *CONF, *common, *cut, f"hydra.run.dir={name}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert relative(last_weights(tmp_path / "cut"), last_weights(tmp_path / "whole")) < 1e-13


def kept_files(run: Path) -> dict[str, bytes]:
    """Return the files of a run that depend on nothing but the experiment."""
    files = [file for file in run.rglob("reports/*/*") if file.suffix != ".png"]
    return {str(file.relative_to(run)): file.read_bytes() for file in [*files, run / "model.safetensors"]}


def in_process(words: Sequence[str], run: Path) -> Trainer:
    small = [
        "epochs=3",
        "dataset.samples=300",
        "dataset.val_samples=40",
        "batch_size=16",
        "threads=1",
        "progress=false",
    ]
    return build_trainer(compose([*words, *small, "checkpoint.every_steps=5"], CONF[1]), run)


@TASKS
@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
def test_a_resumed_run_is_the_same(tmp_path, words, killed) -> None:
    """Stopped by a signal within an epoch, or set back to its last checkpoint, a run ends with the same bits."""
    in_process(words, tmp_path / "whole").fit()
    stop_at(in_process(words, tmp_path / "resumed"), 18, lost=killed)
    resume(tmp_path / "resumed").fit()
    assert metrics_of(tmp_path / "resumed") == metrics_of(tmp_path / "whole")
    assert kept_files(tmp_path / "resumed") == kept_files(tmp_path / "whole")


@TASKS
def test_workers_change_nothing(tmp_path, words) -> None:
    """Streamed in this process or by two others, augmented, a run has the same bits."""
    for workers in (0, 2):
        options = ("dataset.resident=false", "augment=crop_flip", f"num_workers={workers}")
        in_process((*words, *options), tmp_path / str(workers)).fit()
    assert kept_files(tmp_path / "0") == kept_files(tmp_path / "2")


@pytest.mark.parametrize("name", ["labels", "numbers"])
def test_a_report_is_made_again(zygote, home, name) -> None:
    """evaluate.py makes the same report of the test split, with the thresholds or units that the run has saved."""
    run = home / f"{name}0"
    before = kept_files(run)
    (run / "reports/test/predictions.csv").unlink()
    done = zygote.call("evaluate.py", *CONF, f"run={run.name}", "split=test", cwd=home)
    assert done.returncode == 0, done.stderr
    assert kept_files(run) == before
    assert list(rows_of(run / "reports/test/scores.csv")[0]) == ["index", {"labels": "f1"}.get(name, ABSOLUTE)]


@pytest.mark.parametrize("name", ["labels", "numbers"])
@pytest.mark.parametrize("source", ["run={}0", "weights={}0/model.safetensors"])
def test_images_without_targets_are_predicted(zygote, home, name, source) -> None:
    """`input=` predicts the images of the test split as the report does, from a run or its exported weights alone."""
    done = zygote.call("evaluate.py", *CONF, source.format(name), "input=in", cwd=home)
    assert done.returncode == 0, done.stderr
    directory = home / (f"{name}0/reports/input-in" if source.startswith("run") else "outputs/predictions/in")
    found = rows_of(directory / "predictions.csv")
    truth = {int(row["index"]): row for row in rows_of(home / f"{name}0/reports/test/predictions.csv")}
    for row in found:
        expected = truth[int(row["file"].removesuffix(".png"))]["prediction"]
        if name == "labels":
            assert row["prediction"] == expected
        else:
            assert float(row["prediction"]) == pytest.approx(float(expected), rel=0.01)
    assert (directory / "contact_sheet.png").stat().st_size > 1000


@pytest.mark.parametrize("name", ["labels", "numbers"])
def test_runs_are_compared_by_their_scores(zygote, home, name) -> None:
    """Two runs are compared by the mean of scores.csv, with an interval and a verdict that agree."""
    sides = [rows_of(home / f"{name}{seed}/reports/test/scores.csv") for seed in (0, 1)]
    score = list(sides[0][0])[1]
    done = zygote.call("evaluate.py", *CONF, f"run={name}0", f"baseline={name}1", cwd=home)
    assert done.returncode == 0, done.stderr
    files = (home / "outputs/comparisons").glob("*/comparison.json")
    (file,) = (file for file in files if f'"{name}0"' in file.read_text())
    found = json.loads(file.read_text())
    means = [np.mean([float(row[score]) for row in side]) for side in sides]
    assert found["score"]["name"] == score
    assert [found["score"]["run"], found["score"]["baseline"]] == pytest.approx(means)
    assert found["score"]["low"] < found["score"]["difference"] < found["score"]["high"]
    assert (found["verdict"] != "no difference") == (found["p_value"] < 0.05)
    assert found["sentence"] in done.stdout
    assert not (file.parent / "flips.csv").exists()


def test_a_threshold_is_kept_with_the_weights(home) -> None:
    """model.safetensors holds the thresholds of the validation report, and the units of numbers."""
    labels, numbers = (json.loads(metadata_of(home / f"{name}0")["fitted"]) for name in ("labels", "numbers"))
    report = json.loads((home / "labels0/reports/val/report.json").read_text())
    assert labels["thresholds"] == pytest.approx([row["threshold"] for row in report])
    assert labels["thresholds"] != [0.5] * 3
    assert 1400 < numbers["mean"][0] < 1500


SLOW = pytest.param(LABELS, "precision", marks=pytest.mark.long)
CHECKS = [(words, check) for words in (LABELS, NUMBERS) for check in ("accumulation", "drift")]


@pytest.mark.parametrize(("words", "check"), [*CHECKS, (NUMBERS, "precision"), SLOW])
def test_checks_run(zygote, tmp_path, words, check) -> None:
    """Each check measures both tasks, and finds no fault in them."""
    small = ("dataset.samples=300", "dataset.val_samples=40", "batch_size=16", "accum=2", "epochs=1")
    done = zygote.call("train.py", *CONF, *words, *small, f"check={check}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "nan" not in done.stdout.lower()


@pytest.mark.parametrize("words", [("task=multilabel",), ("task=regression",), ("dataset=labeled_digits",)])
def test_a_task_with_other_targets_is_one_line(zygote, tmp_path, words) -> None:
    """Classes for multi-label or regression, and labels for classification, are refused before training."""
    done = zygote.call("train.py", *CONF, *words, cwd=tmp_path)
    assert done.returncode == 2
    assert "choose another task" in error_of(done)


@pytest.mark.parametrize("name", ["labeled_digits", "numbered_digits"])
def test_statistics_of_labels_and_numbers(zygote, tmp_path, name) -> None:
    """compute_stats.py counts each label's images, and those of each tenth of the numbers."""
    done = zygote.call("compute_stats.py", *CONF, f"dataset={name}", "split=train,test", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "outputs/stats").glob("*.json")
    counts = {label: one["count"] for label, one in json.loads(file.read_text())["splits"]["train"]["classes"].items()}
    if name == "labeled_digits":
        digits = load_digits().target[:600]
        targets = labels_of(digits)[np.arange(600) % 5 > 0]
        assert list(counts.values()) == (targets == 1).sum(0).tolist()
    else:
        assert sum(counts.values()) == 480
        assert min(counts.values()) > 30
