"""The report of a classification: scikit-learn's numbers, the files, the pictures."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import classification_report

from microstep.components.task.classification.plots import (
    CALIBRATION_HEADER,
    bin_confidences,
    calibration_rows,
    draw_confusion,
    draw_reliability,
    draw_worst_mistakes,
)
from microstep.types.data import Predictions, Report
from microstep.utils.tables import csv_bytes

log = logging.getLogger("microstep.notice")
MAX_CURVES = 20  #: classes that get a precision-recall curve: TensorBoard stores 127 × 6 numbers for each


def write_report(predictions: Predictions, class_names: Sequence[str], directory: Path) -> Report:
    """Write every file of `reports/<split>/` and return what is shown of it.

    A class that the split lacks is a row of zeros, and a warning.
    """
    probabilities = predictions.outputs.double().softmax(1)
    confidence, predicted = probabilities.max(1)
    truth = predictions.targets
    warn_absent_classes(truth, class_names, directory.name)
    text = write_scores(truth.numpy(), predicted.numpy(), class_names, directory)
    matrix = count_confusion(truth, predicted, len(class_names))
    write_confusion_matrix(matrix, class_names, directory / "confusion_matrix.csv")
    write_predictions(predictions, predicted, confidence, directory / "predictions.csv")
    bins = bin_confidences(confidence, predicted == truth)
    (directory / "calibration.csv").write_bytes(csv_bytes([CALIBRATION_HEADER, *calibration_rows(bins)]))
    pictures = {name: directory / f"{name}.png" for name in ("confusion_matrix", "reliability")}
    draw_confusion(matrix, class_names, pictures["confusion_matrix"])
    draw_reliability(bins, pictures["reliability"])
    if draw_worst_mistakes(predictions, predicted, probabilities, class_names, directory / "worst_mistakes.png"):
        pictures["worst_mistakes"] = directory / "worst_mistakes.png"
    curves = {name: (truth == c, probabilities[:, c]) for c, name in enumerate(class_names[:MAX_CURVES])}
    return Report(text, pictures, curves)


def warn_absent_classes(truth: torch.Tensor, class_names: Sequence[str], split: str) -> None:
    """Warn of classes without samples."""
    counts = torch.bincount(truth, minlength=len(class_names))
    if absent := [name for name, count in zip(class_names, counts.tolist(), strict=True) if not count]:
        log.warning("%s has no sample of %s: their rows in the report are zeros", split, ", ".join(absent))


def write_scores(truth: np.ndarray, predicted: np.ndarray, class_names: Sequence[str], directory: Path) -> str:
    """Write scikit-learn's report as text and JSON; return the text."""
    options = {"labels": range(len(class_names)), "target_names": list(class_names), "zero_division": 0}
    text = str(classification_report(truth, predicted, digits=4, **options))
    scores = classification_report(truth, predicted, output_dict=True, **options)
    (directory / "classification_report.txt").write_text(text, encoding="utf-8")
    scores_json = json.dumps(scores, indent=2, ensure_ascii=False) + "\n"
    (directory / "classification_report.json").write_text(scores_json, encoding="utf-8")
    return text


def count_confusion(truth: torch.Tensor, predicted: torch.Tensor, classes: int) -> np.ndarray:
    """Return counts by true and predicted class; scikit-learn's warns where there is one class only."""
    return torch.bincount(truth * classes + predicted, minlength=classes**2).view(classes, classes).numpy()


def write_confusion_matrix(matrix: np.ndarray, class_names: Sequence[str], file: Path) -> None:
    """Write the confusion matrix, true classes in rows."""
    rows = ([name, *row] for name, row in zip(class_names, matrix.tolist(), strict=True))
    file.write_bytes(csv_bytes([["true \\ predicted", *class_names], *rows]))


def write_predictions(predictions: Predictions, predicted: torch.Tensor, confidence: torch.Tensor, file: Path) -> None:
    """Write a row a sample: its index in the official split, label, prediction, confidence; its file, if any."""
    columns = {
        "index": predictions.indices.tolist(),
        "label": predictions.targets.tolist(),
        "prediction": predicted.tolist(),
        "confidence": [f"{c:.6f}" for c in confidence.tolist()],
    }
    if predictions.files is not None:
        columns["file"] = list(predictions.files)
    file.write_bytes(csv_bytes([list(columns), *zip(*columns.values(), strict=True)]))
