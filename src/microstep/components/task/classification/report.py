"""Classification report: scikit-learn's scores, CSV files and plots."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import classification_report
from torch import Tensor

import microstep.components.task.classification.plots as plots
from microstep.components.task.classification.probabilities import finite_softmax
from microstep.errors import escape_unprintable
from microstep.types.data import Predictions, Report
from microstep.utils.json_files import write_json
from microstep.utils.tables import csv_bytes
from microstep.utils.tensors import finite_rows

log = logging.getLogger("microstep.notice")
MAX_CURVES = 20  #: classes with a precision-recall curve; TensorBoard stores 127 × 6 numbers for each


def write_report(
    predictions: Predictions, class_names: Sequence[str], directory: Path, temperature: float | None = None
) -> Report:
    """Write all files of `reports/<split>/`. Warn if a class has no samples: its scores are 0.

    The outputs of the predictions are logits (N × classes). If those of a sample are not finite, its prediction is
    `plots.NO_CLASS`, with confidence 0, and the confusion matrix leaves it out. The name of the directory is
    the split's in titles and warnings. The report has precision-recall curves of the first `MAX_CURVES` classes.
    """
    class_names = [escape_unprintable(name) for name in class_names]
    probabilities = finite_softmax(predictions.outputs)
    confidence, classes = probabilities.max(1)
    predicted = classes.where(finite_rows(predictions.outputs), plots.NO_CLASS)
    truth = predictions.targets
    warn_absent_classes(truth, class_names, directory.name)
    text = write_scores(truth.numpy(), predicted.numpy(), class_names, directory)
    matrix = write_confusion_matrix(truth, predicted, class_names, directory / "confusion_matrix.csv")
    columns = {"label": truth.tolist(), "prediction": predicted.tolist(), "confidence": confidence.tolist()}
    right = predicted == truth
    write_samples(predictions, columns, ("right", right), directory)
    bins = plots.bin_confidences(confidence, right)
    write_columns(bins, directory / "calibration.csv")
    if note := format_calibrated_error(predictions.outputs, right, temperature):
        text += f"\nexpected calibration error {plots.expected_calibration_error(bins):.4f}{note}\n"
    image_files = {name: directory / f"{name}.png" for name in ("confusion_matrix", "reliability")}
    plots.draw_confusion(matrix, class_names, image_files["confusion_matrix"])
    plots.draw_reliability(bins, image_files["reliability"], note)
    if plots.draw_worst_mistakes(predictions, predicted, probabilities, class_names, directory / "worst_mistakes.png"):
        image_files["worst_mistakes"] = directory / "worst_mistakes.png"
    curves = {name: (truth == c, probabilities[:, c]) for c, name in enumerate(class_names[:MAX_CURVES])}
    return Report(text, image_files, curves)


def format_calibrated_error(outputs: Tensor, right: Tensor, temperature: float | None) -> str:
    """Return the expected calibration error at a temperature; nothing without one."""
    if temperature is None:
        return ""
    bins = plots.bin_confidences(finite_softmax(outputs, temperature).amax(1), right)
    return f", {plots.expected_calibration_error(bins):.4f} at temperature {temperature:.3f}"


def warn_absent_classes(truth: Tensor, class_names: Sequence[str], split: str) -> None:
    counts = torch.bincount(truth, minlength=len(class_names))
    if absent := [name for name, count in zip(class_names, counts.tolist(), strict=True) if not count]:
        log.warning("%s has no sample of %s: their rows in the report are zeros", split, ", ".join(absent))


def write_scores(truth: np.ndarray, predicted: np.ndarray, class_names: Sequence[str], directory: Path) -> str:
    options = {"labels": range(len(class_names)), "target_names": list(class_names), "zero_division": 0}
    text = str(classification_report(truth, predicted, digits=4, **options))
    scores = classification_report(truth, predicted, output_dict=True, **options)
    (directory / "classification_report.txt").write_text(text, encoding="utf-8")
    write_json(directory / "classification_report.json", scores)
    return text


def write_confusion_matrix(truth: Tensor, predicted: Tensor, class_names: Sequence[str], file: Path) -> np.ndarray:
    """Write and return counts by true and predicted class. scikit-learn's function warns of a single class."""
    classes = len(class_names)
    cells = (truth * classes + predicted)[predicted != plots.NO_CLASS]
    matrix = torch.bincount(cells, minlength=classes**2).view(classes, classes).numpy()
    rows = ([name, *row] for name, row in zip(class_names, matrix.tolist(), strict=True))
    file.write_bytes(csv_bytes([["true \\ predicted", *class_names], *rows]))
    return matrix


def write_samples(
    predictions: Predictions, columns: Mapping[str, Sequence[object]], scores: tuple[str, Tensor], directory: Path
) -> None:
    """Write predictions.csv, and scores.csv: a number a sample, the higher the better; NaN leaves a sample out."""
    indices, (name, values) = predictions.indices, scores
    files = {} if predictions.files is None else {"file": predictions.files}
    write_columns({"index": indices.tolist(), **columns, **files}, directory / "predictions.csv")
    known = ~values.isnan()
    cells = [f"{value:.9g}" for value in values[known].tolist()]
    write_columns({"index": indices[known].tolist(), name: cells}, directory / "scores.csv")


def write_columns(columns: Mapping[str, Iterable[object]], file: Path) -> None:
    """Write a CSV file by columns. Floats have six decimals."""
    texts = ([f"{v:.6f}" if isinstance(v, float) else v for v in column] for column in columns.values())
    file.write_bytes(csv_bytes([columns, *zip(*texts, strict=True)]))
