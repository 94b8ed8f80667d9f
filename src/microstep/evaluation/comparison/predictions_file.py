"""Reads the predictions in a run's report. Anyone may have written the files, so each is checked."""

import csv
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np

from microstep.errors import DataError, escape_unprintable
from microstep.evaluation.comparison.paired import Array
from microstep.utils.json_files import read_limited

MAX_TABLE_BYTES = 2**27  #: bytes of a table, for a few million samples
PREDICTION_COLUMNS = ["index", "label", "prediction", "confidence"]


@dataclass(frozen=True)
class SavedPredictions:
    """Predictions of a run for the N samples of a split, sorted by the index of the samples."""

    indices: Array  #: N, int64
    labels: Array  #: N, int64: true classes
    predictions: Array  #: N, int64: predicted classes; the number of classes if the outputs were not finite
    confidence: Array  #: N, in 0…1
    files: tuple[str, ...] | None  #: files of the samples, if they are files
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class SavedScores:
    """Scores of a run for N samples of a split, sorted by the index of the samples."""

    indices: Array  #: N, int64
    scores: Array  #: N, the higher the better
    name: str
    labels: tuple[()] = ()
    class_names: tuple[()] = ()


def read_report(directory: Path) -> SavedPredictions | SavedScores:
    """Return the predictions in the directory of a report, or its scores if they are no classes."""
    if (directory / "confusion_matrix.csv").exists() or not (directory / "scores.csv").exists():
        return read_predictions(directory)
    with damage_errors(directory / "scores.csv") as file:
        (_, name), *rows = iter_table_rows(file)
        indices, scores = np.array([[int(index), float(score)] for index, score in rows], np.float64).T
        order = np.argsort(indices, kind="stable")
        if len(rows) < 2 or (np.diff(indices[order]) == 0).any() or not np.isfinite(scores).all():
            raise ValueError("it has fewer than two samples, one twice, or a score that is no number")
        return SavedScores(indices[order].astype(np.int64), scores[order], escape_unprintable(name))


def read_predictions(directory: Path) -> SavedPredictions:
    """Return the predictions in the directory of a report.

    Raise FileNotFoundError if there is no report, DataError if a file is damaged or too large, or a label is no class.
    """
    with damage_errors(directory / "confusion_matrix.csv") as file:
        head = next(iter_table_rows(file), [])
        if len(head) < 2:
            raise ValueError("it names no classes")
    with damage_errors(directory / "predictions.csv") as file:
        header, *rows = list(iter_table_rows(file)) or [[]]
        if header[:4] != PREDICTION_COLUMNS or any(len(row) != len(header) for row in rows):
            raise ValueError(f"its columns are not {', '.join(PREDICTION_COLUMNS)}")
        return parse_predictions(rows, tuple(map(escape_unprintable, head[1:])))


def parse_predictions(rows: Sequence[Sequence[str]], names: tuple[str, ...]) -> SavedPredictions:
    """Return the predictions in the rows of a table; raise a ValueError or OverflowError if a cell is not valid."""
    numbers = np.array([[int(cell) for cell in row[:3]] for row in rows], np.int64).reshape(-1, 3)
    confidence = np.array([float(row[3]) for row in rows], np.float64)
    order = np.argsort(numbers[:, 0], kind="stable")
    indices, labels, predictions = numbers[order].T
    if len(rows) < 2 or (np.diff(indices) == 0).any():
        raise ValueError("it has fewer than two samples, or one twice")
    if min(labels.min(), predictions.min() + 1) < 0 or max(labels.max(), predictions.max()) >= len(names):
        raise ValueError(f"a class is not in 0…{len(names) - 1}")
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError("a confidence is not in 0…1")
    files = tuple(rows[index][4] for index in order) if len(rows[0]) > 4 else None
    known = np.where(predictions < 0, len(names), predictions)
    return SavedPredictions(indices, labels, known, confidence[order], files, names)


def iter_table_rows(file: Path) -> Iterator[list[str]]:
    csv.field_size_limit(min(MAX_TABLE_BYTES, sys.maxsize))  # a cell may be as long as the file
    return csv.reader(StringIO(read_limited(file, MAX_TABLE_BYTES).decode(), newline=""), strict=True)


@contextmanager
def damage_errors(file: Path) -> Iterator[Path]:
    try:
        yield file
    except FileNotFoundError:
        raise
    except (OSError, ValueError, OverflowError, csv.Error) as error:
        raise DataError(str(file), f"it is damaged: {error}", "evaluate the run again") from None
