"""Tests of the classification report."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, classification_report, confusion_matrix
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from microstep.components.dataset import ResidentSplit
from microstep.components.dataset.normalization import Normalizer
from microstep.components.task import Classification
from microstep.errors import StorageError
from microstep.types.data import Predictions, Report
from microstep.utils.files import storage_errors
from tests.conftest import files_limited

CPU = torch.device("cpu")
DIGITS = [str(digit) for digit in range(10)]
ANIMALS = ("cat", "sea lion", "newt, great crested")
SPLITS = pytest.mark.parametrize("split", ["val", "test"])


def rows_of(file: Path) -> list[list[str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


def predictions_of(directory: Path) -> tuple[list[int], list[int]]:
    """Return labels and predictions as predictions.csv has them."""
    rows = rows_of(directory / "predictions.csv")[1:]
    return [int(row[1]) for row in rows], [int(row[2]) for row in rows]


def reported(truth: Sequence[int], guess: Sequence[int], names: Sequence[str], directory: Path) -> Report:
    """Write the report of these predictions for small color images."""
    directory.mkdir(exist_ok=True)
    targets = torch.tensor(truth)
    pixels = torch.randint(0, 256, (len(truth), 3, 6, 6), dtype=torch.uint8)
    split = ResidentSplit(
        pixels, targets, 100 + torch.arange(len(truth)), Normalizer(255.0, [0.0] * 3, [1.0] * 3, CPU), CPU
    )
    outputs = 4 * torch.eye(len(names))[list(guess)]
    task = Classification(names, torch.arange(len(names)), CPU)
    return task.report(Predictions(outputs, targets, split.indices, split, CPU), directory)


def notices(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "microstep.notice"]


@SPLITS
def test_the_text_is_scikit_learns(trained, split):
    """The text equals scikit-learn's report of predictions.csv."""
    directory = trained / "reports" / split
    expected = classification_report(*predictions_of(directory), target_names=DIGITS, digits=4, zero_division=0)
    assert (directory / "classification_report.txt").read_text() == expected


@SPLITS
def test_the_json_is_scikit_learns(trained, split):
    """All scores of classes and averages equal scikit-learn's."""
    directory = trained / "reports" / split
    found = json.loads((directory / "classification_report.json").read_text())
    options = {"target_names": DIGITS, "output_dict": True, "zero_division": 0}
    assert found == classification_report(*predictions_of(directory), **options)
    assert list(found) == [*DIGITS, "accuracy", "macro avg", "weighted avg"]
    for average in ("macro avg", "weighted avg"):
        assert list(found[average]) == ["precision", "recall", "f1-score", "support"]


@SPLITS
def test_the_confusion_matrix_is_scikit_learns(trained, split):
    """Rows are true classes and columns predicted ones, both with class names."""
    directory = trained / "reports" / split
    header, *rows = rows_of(directory / "confusion_matrix.csv")
    assert header == ["true \\ predicted", *DIGITS]
    assert [row[0] for row in rows] == DIGITS
    found = np.array([[int(cell) for cell in row[1:]] for row in rows])
    np.testing.assert_array_equal(found, confusion_matrix(*predictions_of(directory)))
    assert found.sum() == 180


def test_the_test_accuracy_is_the_same_everywhere(trained):
    """run.json, TensorBoard, the report and a count of predictions.csv agree."""
    directory = trained / "reports" / "test"
    record = json.loads((trained / "run.json").read_text())["metrics"]["test"]
    events = EventAccumulator(str(trained)).Reload()
    scores = json.loads((directory / "classification_report.json").read_text())
    counted = accuracy_score(*predictions_of(directory))
    assert record["accuracy"] == scores["accuracy"] == counted
    assert events.Scalars("test/accuracy")[0].value == np.float32(counted)
    assert record["f1_macro"] == pytest.approx(scores["macro avg"]["f1-score"], abs=1e-12)
    assert record["f1_weighted"] == pytest.approx(scores["weighted avg"]["f1-score"], abs=1e-12)


def test_the_validation_accuracy_is_the_same_everywhere(trained):
    """run.json, TensorBoard, the best epoch's row of metrics.csv, and the report agree."""
    metrics = json.loads((trained / "run.json").read_text())["metrics"]
    best = metrics["best"]["epoch"]
    header, *rows = rows_of(trained / "metrics.csv")
    row = dict(zip(header, rows[best - 1], strict=True))
    scores = json.loads((trained / "reports" / "val" / "classification_report.json").read_text())
    event = EventAccumulator(str(trained)).Reload().Scalars("val/accuracy")[best - 1]
    assert metrics["val"]["accuracy"] == metrics["best"]["accuracy"] == scores["accuracy"] == float(row["val_accuracy"])
    assert (event.step, event.value) == (best, np.float32(scores["accuracy"]))


def test_rows_bear_the_classes_names(tmp_path):
    """Names with spaces and commas appear unaltered in text, JSON and matrix."""
    report = reported([0, 1, 2, 2], [0, 1, 1, 2], ANIMALS, tmp_path / "test")
    scores = json.loads((tmp_path / "test" / "classification_report.json").read_text())
    assert list(scores)[:3] == list(ANIMALS)
    assert scores["sea lion"] == {
        "precision": 0.5,
        "recall": 1.0,
        "f1-score": pytest.approx(2 / 3),
        "support": 1.0,
    }
    assert [row[0] for row in rows_of(tmp_path / "test" / "confusion_matrix.csv")[1:]] == list(ANIMALS)
    assert all(name in report.text for name in ANIMALS)


def test_a_class_that_the_split_lacks_is_a_row_of_zeros_and_one_warning(tmp_path, caplog):
    """An absent class causes neither an error nor scikit-learn's warning. The macro mean includes its zeros."""
    reported([0, 0, 1, 1], [0, 0, 1, 0], ANIMALS, tmp_path / "val")
    assert notices(caplog) == ["val has no sample of newt, great crested: their rows in the report are zeros"]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    scores = json.loads((tmp_path / "val" / "classification_report.json").read_text())
    assert set(scores[ANIMALS[2]].values()) == {0.0}
    assert scores["accuracy"] == 0.75
    assert scores["macro avg"]["recall"] == pytest.approx(1.5 / 3)
    assert rows_of(tmp_path / "val" / "confusion_matrix.csv")[3] == [ANIMALS[2], "0", "0", "0"]


def test_several_absent_classes_are_one_warning(tmp_path, caplog):
    """One warning names all absent classes, including a predicted one."""
    reported([1, 1], [1, 0], ANIMALS, tmp_path / "val")
    assert len(notices(caplog)) == 1
    assert all(name in notices(caplog)[0] for name in (ANIMALS[0], ANIMALS[2]))


def test_a_class_that_is_never_predicted_is_no_warning(tmp_path, caplog):
    """A class that is never predicted has precision 0 and causes no warning."""
    reported([0, 1, 2], [0, 1, 1], ANIMALS, tmp_path / "val")
    assert notices(caplog) == []


def test_no_mistakes_are_no_crash(tmp_path):
    """All scores of a perfect model are 1, and its image of mistakes is empty."""
    report = reported([0, 1, 2, 1], [0, 1, 2, 1], ANIMALS, tmp_path / "test")
    scores = json.loads((tmp_path / "test" / "classification_report.json").read_text())
    assert scores["accuracy"] == scores["macro avg"]["f1-score"] == 1.0
    assert set(report.images) == {"confusion_matrix", "reliability", "worst_mistakes"}
    assert png(tmp_path / "test" / "worst_mistakes.png")


@pytest.mark.filterwarnings("ignore:A single label was found")
def test_one_class_is_no_crash(tmp_path):
    """A report of a single class can be written."""
    reported([0, 0], [0, 0], ("only",), tmp_path / "test")
    assert rows_of(tmp_path / "test" / "confusion_matrix.csv") == [["true \\ predicted", "only"], ["only", "2"]]
    assert png(tmp_path / "test" / "confusion_matrix.png")


def test_one_class_is_no_warning_either(tmp_path):
    """A single class causes no warning."""
    reported([0, 0], [0, 0], ("only",), tmp_path / "test")
    assert (tmp_path / "test" / "classification_report.txt").exists()


def test_nothing_but_mistakes_are_no_crash(tmp_path):
    """If there are more mistakes than fit in the image, it shows the worst."""
    reported([0, 1, 2] * 20, [1, 2, 0] * 20, ANIMALS, tmp_path / "test")
    assert json.loads((tmp_path / "test" / "classification_report.json").read_text())["accuracy"] == 0
    assert png(tmp_path / "test" / "worst_mistakes.png")


def png(file: Path) -> bool:
    """Return whether a file is a complete PNG of a minimum size with more than one color."""
    with Image.open(file) as image:
        assert image.format == "PNG"
        assert min(image.size) > 100
        low, high = image.convert("L").getextrema()
    return high > low


@SPLITS
@pytest.mark.parametrize("name", ["confusion_matrix.png", "reliability.png", "worst_mistakes.png"])
def test_the_pictures_are_pictures(trained, split, name):
    """The images are PNG files of a readable size and are not empty."""
    assert png(trained / "reports" / split / name)


def test_confidence_is_the_probability_of_the_prediction(tmp_path):
    """Confidence is the softmax of the predicted class with six decimals. The index is that of the official split."""
    reported([0, 1], [0, 2], ANIMALS, tmp_path / "test")
    share = np.exp(4) / (np.exp(4) + 2)
    assert rows_of(tmp_path / "test" / "predictions.csv") == [
        ["index", "label", "prediction", "confidence"],
        ["100", "0", "0", f"{share:.6f}"],
        ["101", "1", "2", f"{share:.6f}"],
    ]


def test_curves_are_one_against_the_rest(tmp_path):
    """The curve of each class has its samples and its probabilities."""
    report = reported([0, 1, 1], [0, 1, 0], ANIMALS[:2], tmp_path / "test")
    assert list(report.curves) == list(ANIMALS[:2])
    positive, score = report.curves["sea lion"]
    assert positive.tolist() == [False, True, True]
    assert score.argmax() == 1
    torch.testing.assert_close(score, 1 - report.curves["cat"][1])


@pytest.mark.parametrize("names", [("cost $\\frac$", "b"), ("$x_$", "b")])
def test_dollars_in_a_class_name_are_no_formula(tmp_path, names):
    """Class names with special characters are drawn as they are."""
    reported([0, 1, 1], [0, 1, 0], names, tmp_path / "test")
    assert png(tmp_path / "test" / "worst_mistakes.png")


def test_a_class_name_in_any_script_makes_no_warning(tmp_path):
    """Chinese and Arabic class names cause no warnings."""
    reported([0, 1, 1], [0, 1, 0], ("猫", "كلب"), tmp_path / "test")
    assert rows_of(tmp_path / "test" / "confusion_matrix.csv")[1][0] == "猫"


def test_where_the_disk_is_full_it_is_a_failure_of_storage(tmp_path):
    """A report that can't be written exits with 4 and names the file."""
    with files_limited(100), pytest.raises(StorageError), storage_errors(tmp_path):
        reported([0, 1, 2], [0, 1, 1], ANIMALS, tmp_path / "test")
