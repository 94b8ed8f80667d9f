"""A run's predictions, from its report: files that anybody may have made."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np

from microstep.errors import DataError
from microstep.evaluation.comparison.paired import Array
from microstep.utils.json_files import read_limited

MAX_TABLE_BYTES = 2**27  #: bytes of a table: some millions of samples
PREDICTION_COLUMNS = ["index", "label", "prediction", "confidence"]
EVALUATE_REMEDY = "evaluate the run again"


@dataclass(frozen=True)
class SavedPredictions:
    """What a run said of a split, sorted by the samples' indices.

    Args:
        indices, labels, predictions: N each, int64; labels and predictions are classes.
        confidence: N, in 0…1.
        files: the samples' files, where they are some.
        class_names: by number.
    """

    indices: Array
    labels: Array
    predictions: Array
    confidence: Array
    files: tuple[str, ...] | None
    class_names: tuple[str, ...]


def read_predictions(directory: Path) -> SavedPredictions:
    """Return the report in a directory.

    Raises:
        FileNotFoundError: where there is none.
        DataError: where a file is damaged: no table, of no size, with labels that are no classes.
    """
    names = read_class_names(directory / "confusion_matrix.csv")
    file = directory / "predictions.csv"
    table = iter_table_rows(file)
    header = next(table, [])
    rows = list(table)
    try:
        if header[:4] != PREDICTION_COLUMNS or any(len(row) != len(header) for row in rows):
            raise ValueError(f"its columns are not {', '.join(PREDICTION_COLUMNS)}")
        return parse_predictions(rows, names)
    except (ValueError, OverflowError) as error:
        raise damaged_table_error(file, error) from None


def parse_predictions(rows: Sequence[Sequence[str]], names: tuple[str, ...]) -> SavedPredictions:
    """Return the rows as a report.

    Raises:
        ValueError: for what no run writes; OverflowError for numbers that nothing here can count to.
    """
    numbers = np.array([[int(cell) for cell in row[:3]] for row in rows], np.int64).reshape(-1, 3)
    confidence = np.array([float(row[3]) for row in rows], np.float64)
    order = np.argsort(numbers[:, 0], kind="stable")
    indices, labels, predictions = numbers[order].T
    if len(rows) < 2 or (np.diff(indices) == 0).any():
        raise ValueError("it has fewer than two samples, or one twice")
    if min(labels.min(), predictions.min()) < 0 or max(labels.max(), predictions.max()) >= len(names):
        raise ValueError(f"a class is not in 0…{len(names) - 1}")
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError("a confidence is not in 0…1")
    files = tuple(rows[place][4] for place in order) if len(rows[0]) > 4 else None
    return SavedPredictions(indices, labels, predictions, confidence[order], files, names)


def read_class_names(file: Path) -> tuple[str, ...]:
    """Return the classes, in order: the head of the confusion matrix."""
    head = next(iter_table_rows(file), [])
    if len(head) < 2:
        raise damaged_table_error(file, ValueError("it names no classes"))
    return tuple(head[1:])


def iter_table_rows(file: Path) -> Iterator[list[str]]:
    """Yield the rows of a table; a cell may be as long as the whole of it."""
    csv.field_size_limit(min(MAX_TABLE_BYTES, sys.maxsize))
    try:
        yield from csv.reader(StringIO(read_limited(file, MAX_TABLE_BYTES).decode(), newline=""), strict=True)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, csv.Error) as error:
        raise damaged_table_error(file, error) from None


def damaged_table_error(file: Path, error: Exception) -> DataError:
    """Return what is wrong with a table, in one line."""
    return DataError(str(file), f"it is damaged: {error}", EVALUATE_REMEDY)
