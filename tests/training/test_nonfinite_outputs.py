"""A model whose outputs are not finite is never right, and never the best if another epoch is finite."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn

from microstep.components.model import mlp
from microstep.config.allowlist import ALLOW_ALL
from microstep.errors import DataError, Diverged
from microstep.evaluation.comparison.compare import compare_runs
from microstep.evaluation.evaluate import evaluate_run
from microstep.evaluation.predict import predict_input
from microstep.utils.progress_bar import ProgressBars
from tests.conftest import call, fit

BARS = ProgressBars(False)


class Broken(nn.Module):
    """An MLP for digits whose outputs are not finite in evaluation, for bright images, from the first to the last of
    these epochs."""

    def __init__(self, shape: Sequence[int], classes: int, first: int, last: int, value: float, above: float) -> None:
        super().__init__()
        self.mlp, self.value, self.above, self.broken = mlp(shape, classes, [32]), value, above, range(first, last + 1)
        self.register_buffer("windows", torch.zeros((), dtype=torch.int64))

    def forward(self, images: Tensor) -> Tensor:
        outputs = self.mlp(images)
        self.windows += self.training
        if self.training or self.windows / 23 not in self.broken:
            return outputs
        return torch.where((images.flatten(1).mean(1) > self.above)[:, None], self.value, outputs)


def nan_in_4(input_shape, num_classes, hidden, dropout) -> Broken:
    return Broken(input_shape, num_classes, 4, 4, float("nan"), -9)


def inf_in_4(input_shape, num_classes, hidden, dropout) -> Broken:
    return Broken(input_shape, num_classes, 4, 4, float("inf"), -9)


def nan_from_2(input_shape, num_classes, hidden, dropout) -> Broken:
    return Broken(input_shape, num_classes, 2, 9, float("nan"), -9)


def nan_up_to_3(input_shape, num_classes, hidden, dropout) -> Broken:
    return Broken(input_shape, num_classes, 1, 3, float("nan"), -9)


def always_nan(input_shape, num_classes, hidden, dropout) -> Broken:
    return Broken(input_shape, num_classes, 1, 9, float("nan"), -9)


def half_nan_in_4(input_shape, num_classes, hidden, dropout) -> Broken:
    return Broken(input_shape, num_classes, 4, 4, float("nan"), 0)


def never_broken(input_shape, num_classes, hidden, dropout) -> Broken:
    return Broken(input_shape, num_classes, 9, 9, float("nan"), 0)


def words(model: Callable[..., Broken], *more: str) -> list[str]:
    return ["model=mlp", f"model._target_={__name__}.{model.__name__}", "epochs=4", *more]


def record_of(run: Path) -> dict:
    return json.loads((run / "run.json").read_text())


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def notices(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "microstep.notice"]


@pytest.fixture
def broken(tmp_path) -> Path:
    """A run whose last epoch gives NaN for the brighter half of the images."""
    fit(words(half_nan_in_4), tmp_path / "broken run")
    return tmp_path / "broken run"


@pytest.mark.parametrize("model", [nan_in_4, inf_in_4])
def test_a_finite_epoch_is_the_best(model, tmp_path, caplog):
    """The best epoch, its weights and both reports are those of epoch 3. A warning counts the samples of epoch 4."""
    with caplog.at_level(logging.WARNING):
        results = fit(words(model), tmp_path / "run")
    assert results.best_epoch == 3
    assert results.val["accuracy"] > 0.5
    assert notices(caplog) == ["the model's outputs are not finite for 180 samples, which count as wrong"]


@pytest.mark.parametrize(("model", "best"), [(nan_from_2, 1), (nan_up_to_3, 4)])
def test_the_only_finite_epoch_is_the_best(model, best, tmp_path):
    """Its place among the others, and its accuracy, do not matter."""
    results = fit(words(model, "optimizer.lr=1e-12"), tmp_path / "run")
    assert (results.best_epoch, results.val["loss"]) == (best, pytest.approx(2.3, abs=0.2))


def test_without_a_finite_epoch_the_run_has_diverged(tmp_path):
    """It ends with exit code 3 and one line that names a way out. Nothing says that it finished."""
    with pytest.raises(Diverged, match=r"^epoch 4: the validation loss was not finite after any epoch; "):
        fit(words(always_nan), tmp_path / "run")
    assert record_of(tmp_path / "run")["status"] == "failed"


def test_one_rare_class_and_a_rate_that_is_far_too_high(tmp_path):
    """NaN is the first class for argmax: with 90 % of the images in it, accuracy would be 0.9."""
    for split, counts in (("train", (180, 20)), ("test", (18, 2))):
        for name, count in zip(("common", "rare"), counts, strict=True):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = np.full((8, 8), (index * 7 + 90 * (name == "rare")) % 256, np.uint8)
                Image.fromarray(pixels).save(tmp_path / "photos" / split / name / f"{index}.png")
    data = ["dataset=image_folder", "dataset.root=photos", "dataset.size=8", "model=mlp"]
    one_step = ["batch_size=180", "dataset.val_fraction=0.1", "epochs=1", "scheduler=constant", "optimizer.lr=1e30"]
    done = call("train.py", *data, *one_step, cwd=tmp_path)
    assert done.returncode == 3, done.stdout
    reason = "error: epoch 1: the validation loss was not finite after any epoch; lower optimizer.lr or set "
    assert done.stderr.splitlines()[-1].startswith(reason), done.stderr


def test_the_report_of_a_broken_epoch(broken):
    """A sample without finite outputs has prediction -1 with confidence 0, and counts as wrong."""
    evaluated = evaluate_run(broken, "test", "last", ALLOW_ALL, None, BARS)
    rows = rows_of(evaluated.directory / "predictions.csv")
    missing = [row for row in rows if row["prediction"] == "-1"]
    assert 50 < len(missing) < 130
    assert {row["confidence"] for row in missing} == {"0.000000"}
    right = sum(row["label"] == row["prediction"] for row in rows)
    assert evaluated.result.metrics["accuracy"] == pytest.approx(right / len(rows), abs=1e-12)
    scores = json.loads((evaluated.directory / "classification_report.json").read_text())
    assert evaluated.result.metrics["f1_macro"] == pytest.approx(scores["macro avg"]["f1-score"], abs=1e-12)
    matrix = np.array(
        [[int(n) for n in list(row.values())[1:]] for row in rows_of(evaluated.directory / "confusion_matrix.csv")]
    )
    assert matrix.sum() == len(rows) - len(missing)
    assert np.trace(matrix) == right


def test_a_comparison_counts_it_as_wrong(broken, tmp_path):
    """The comparison of last and best finds the accuracies of the two reports, and names no class for a flip."""
    fit(words(never_broken), tmp_path / "whole")
    evaluated = [evaluate_run(run, "test", "last", ALLOW_ALL, None, BARS) for run in (broken, tmp_path / "whole")]
    written = compare_runs(str(broken), str(tmp_path / "whole"), "test", "last", lambda others: ALLOW_ALL)
    (directory,) = written.directories
    content = json.loads((directory / "comparison.json").read_text())
    assert [content["accuracy"][side] for side in ("run", "baseline")] == pytest.approx(
        [one.result.metrics["accuracy"] for one in evaluated]
    )
    assert {row["run"] for row in rows_of(directory / "flips.csv")} == {"none"}


def test_an_image_without_finite_outputs_has_no_class(broken, tmp_path):
    """Its row of predictions.csv has no class, and says why; if no image has any, that is the error."""
    digits, folder = load_digits().images, tmp_path / "digits"
    folder.mkdir()
    brightness = digits.mean((1, 2))
    for name, index in {"dark": brightness.argmin(), "bright": brightness.argmax()}.items():
        Image.fromarray(np.round(digits[index] * 255 / 16).astype(np.uint8)).save(folder / f"{name}.png")
    done = predict_input(broken, str(folder), "last", ALLOW_ALL, None, BARS)
    bright, dark = rows_of(done.directory / "predictions.csv")
    assert (bright["class_1"], bright["error"]) == ("", "the model's outputs are not finite")
    assert (dark["class_1"] != "", dark["error"]) == (True, "")
    with pytest.raises(DataError, match=r"bright.png: the model's outputs are not finite; give images"):
        predict_input(broken, str(folder / "bright.png"), "last", ALLOW_ALL, None, BARS)
