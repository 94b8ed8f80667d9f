"""Pools the predictions of a sweep's folds: each sample's are of a run that was not trained on it."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch

from microstep.components.task.classification.plots import NO_CLASS, draw_confusion
from microstep.components.task.classification.report import write_columns, write_confusion_matrix, write_scores
from microstep.errors import ConfigError, DataError
from microstep.evaluation.comparison.predictions_file import SavedScores, damage_errors, read_report
from microstep.run.layout import get_report_path
from microstep.sweep.summary.folds import POOLED_FILE, FoldedSetting, find_folded_settings
from microstep.sweep.summary.reading import SweepRun, read_sweep
from microstep.sweep.summary.study import tabulate
from microstep.utils.files import write_directory
from microstep.utils.json_files import read_limited, write_json

Columns = dict[str, Any]  #: arrays with a value for each prediction
SUSPECTS_FILE = "suspects.csv"
MAX_BYTES = 2**30  #: bytes of probabilities.npz


def write_out_of_fold(directory: Path) -> None:
    """Write the pooled report of each setting of a sweep whose folds have all finished.

    Raise DataError if a report is missing or damaged, or if a setting's samples are not predicted once a repeat.
    """
    settings = find_folded_settings(tabulate(read_sweep(directory)))
    top = directory / "reports" / "out_of_fold"
    for path in (top.parent, top, *(setting.directory for setting in settings)):
        if path.is_symlink():
            raise ConfigError(str(path), "a link leads out of the sweep", "replace it by a copy")
    if any(setting.directory.parent == top for setting in settings):
        remove_files(top)  # of the one setting that there was before the sweep was widened
    for setting in settings:
        if not setting.missing:
            write_pooled(setting)


def remove_files(directory: Path) -> None:
    for file in directory.glob("*.*"):
        if file.is_file():
            file.unlink()


def write_pooled(setting: FoldedSetting) -> None:
    columns, names = read_folds(setting)
    probabilities = columns.pop("probabilities", None)
    samples = count_samples(setting, columns)
    setting.directory.parent.mkdir(parents=True, exist_ok=True)
    (setting.directory / SUSPECTS_FILE).unlink(missing_ok=True)  # of a time with cleanlab
    with write_directory(setting.directory) as draft:
        pooled = write_classes(columns, names, draft) if names else write_mean(columns, draft)
        if probabilities is not None:
            pooled |= write_suspects(columns, probabilities, samples, names, draft / SUSPECTS_FILE)
        write_json(draft / POOLED_FILE, {"samples": samples} | pooled)


def read_folds(setting: FoldedSetting) -> tuple[Columns, tuple[str, ...]]:
    """Return the predictions of all runs of a setting, and the names of the classes; none if there are no classes."""
    parts, names = [], set()
    for (repeat, seed), runs in setting.runs.items():
        for fold, run in sorted(runs.items()):
            columns, own = read_fold(run)
            numbers = {"repeat": repeat, "seed": seed, "fold": fold}
            parts.append(columns | {key: np.full(len(columns["index"]), value) for key, value in numbers.items()})
            names.add((own, *columns))
    if len(names) > 1:
        raise DataError(setting.label, "its folds do not have the same classes", "train them on the same data")
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}, own


def read_fold(run: SweepRun) -> tuple[Columns, tuple[str, ...]]:
    """Return the predictions of a run's last weights for its fold, and the names of its classes."""
    directory = run.saved.directory / get_report_path("val", "last")
    try:
        saved = read_report(directory)
        if isinstance(saved, SavedScores):
            return {"index": saved.indices, saved.name: saved.scores}, ()
        probabilities = read_probabilities(directory / "probabilities.npz", saved.indices, len(saved.class_names))
    except FileNotFoundError as error:
        command = f"evaluate.py run={run.saved.directory} split=val checkpoint=last"
        raise DataError(str(error.filename), "it is missing", f"{command} writes it") from None
    predictions = np.where(saved.predictions == len(saved.class_names), NO_CLASS, saved.predictions)
    columns = {"index": saved.indices, "label": saved.labels, "prediction": predictions}
    columns |= {"confidence": saved.confidence, "probabilities": probabilities}
    return columns | ({"file": np.array(saved.files)} if saved.files else {}), saved.class_names


def read_probabilities(file: Path, indices: np.ndarray, classes: int) -> np.ndarray:
    """Return the probabilities (N × classes) of the samples with these sorted indices."""
    with damage_errors(file):
        try:
            with np.load(BytesIO(read_limited(file, MAX_BYTES)), allow_pickle=False) as arrays:
                order = np.argsort(arrays["index"])
                found, own = np.asarray(arrays["probabilities"][order], np.float32), arrays["index"][order]
        except (KeyError, TypeError, IndexError, EOFError, MemoryError, BadZipFile) as error:
            raise ValueError(str(error)) from None
        is_valid = found.shape == (len(indices), classes) and ((found >= 0) & (found <= 1)).all()
        if not is_valid or not np.array_equal(own, indices):
            raise ValueError(f"it does not have the probabilities of {len(indices)} samples and {classes} classes")
        return found


def count_samples(setting: FoldedSetting, columns: Columns) -> int:
    """Return the number of samples. Raise DataError unless each is predicted once in each repeat."""
    rows = np.stack([columns[key].astype(np.int64) for key in ("index", "repeat", "seed")])
    samples, distinct = len(np.unique(rows[0])), np.unique(rows, axis=1).shape[1]
    if not distinct == rows.shape[1] == samples * len(setting.runs):
        reason = "its folds do not predict the same samples, each once, in every repeat"
        raise DataError(setting.label, reason, "train them on the same data")
    return samples


def write_mean(columns: Columns, draft: Path) -> dict[str, object]:
    write_columns(columns, draft / "scores.csv")
    name = list(columns)[1]
    return {"metric": f"mean {name}", "score": float(columns[name].mean())}


def write_classes(columns: Columns, names: Sequence[str], draft: Path) -> dict[str, object]:
    write_columns(columns, draft / "predictions.csv")
    labels, predictions = columns["label"], columns["prediction"]
    write_scores(labels, predictions, names, draft)
    file, tensors = draft / "confusion_matrix.csv", (torch.from_numpy(labels), torch.from_numpy(predictions))
    draw_confusion(write_confusion_matrix(*tensors, names, file), names, file.with_suffix(".png"))
    return {"metric": "accuracy", "score": float((labels == predictions).mean())}


def write_suspects(
    columns: Columns, probabilities: np.ndarray, samples: int, names: Sequence[str], file: Path
) -> dict[str, int]:
    """Write the samples whose labels may be wrong, by their mean probabilities over repeats; return their number.

    They are found by confident learning (Northcutt, Jiang and Chuang, JAIR 2021), with cleanlab if it is installed.
    """
    try:
        from cleanlab.filter import find_label_issues
    except ImportError:
        return {}
    order = np.argsort(columns["index"], kind="stable").reshape(samples, -1)  # a row per sample, a column per repeat
    means, labels = probabilities[order].mean(1), columns["label"][order[:, 0]]
    options = {"filter_by": "confident_learning", "return_indices_ranked_by": "normalized_margin", "n_jobs": 1}
    rows = find_label_issues(labels, means, **options)
    table: Columns = {name: columns[name][order[rows, 0]] for name in ("index", "file") if name in columns}
    for name, classes in (("label", labels[rows]), ("suggested", means[rows].argmax(1))):
        table |= {name: np.array(names)[classes], f"{name}_probability": means[rows, classes].astype(float)}
    write_columns(table, file)
    return {"suspects": len(rows)}
