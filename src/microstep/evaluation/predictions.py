"""Predictions for images without labels, as a table of the most probable classes."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from microstep.errors import escape_unprintable
from microstep.utils.tables import csv_bytes

log = logging.getLogger("microstep.notice")
TOP_K = 5  #: classes listed for each image
MAX_NAMED_FILES = 10  #: images without a prediction that warnings name
MAX_COUNTED_CLASSES = 6  #: classes counted on the terminal


@dataclass(frozen=True)
class ClassifiedImages:
    """The k most probable classes of M of N images, and why the others have none."""

    files: Sequence[str]  #: N
    class_names: tuple[str, ...]
    rows: Tensor  #: M, int64: index in `files` of each image with a prediction
    classes: Tensor  #: M × k, int64: the most probable first
    confidence: Tensor  #: M × k, float64, in 0…1
    errors: Mapping[int, str]  #: error message by index in `files`


def top_classes(logits: Tensor, temperature: float | None = None) -> tuple[Tensor, Tensor]:
    """Return the most probable classes and their confidence: N × k each, on the CPU, for logits of N × C.

    Of equally probable classes, the first wins.
    """
    probabilities = (logits.cpu().double() / (temperature or 1.0)).softmax(1)
    confidence, classes = probabilities.sort(dim=1, descending=True, stable=True)
    return classes[:, :TOP_K].clone(), confidence[:, :TOP_K].clone()  # a view would keep all C columns in memory


def format_predictions_csv(classified: ClassifiedImages) -> bytes:
    """Return `file,class_1,confidence_1,…,error` with a row for each image; bytes that are not UTF-8 become \\udcXX."""
    k = classified.classes.shape[1]
    head = ["file", *(f"{name}_{i}" for i in range(1, k + 1) for name in ("class", "confidence")), "error"]
    columns = (classified.rows, classified.classes, classified.confidence)
    cells: dict[int, list[str]] = {}
    for row, classes, confidence in zip(*(column.tolist() for column in columns), strict=True):
        pairs = zip(classes, confidence, strict=True)
        cells[row] = [cell for c, p in pairs for cell in (classified.class_names[c], f"{p:.6f}")]
    files, errors = enumerate(classified.files), classified.errors
    return csv_bytes([head, *([file, *cells.get(n, [""] * 2 * k), errors.get(n, "")] for n, file in files)])


def format_class_counts(classified: ClassifiedImages) -> str:
    found = Counter(classified.classes[:, 0].tolist()).most_common()
    names = tuple(map(escape_unprintable, classified.class_names))
    line = ", ".join(f"{names[c]} {count:,}" for c, count in found[:MAX_COUNTED_CLASSES])
    others = sum(count for _, count in found[MAX_COUNTED_CLASSES:])
    return f"{line}, {others:,} of other classes" if others else line


def warn_errors(classified: ClassifiedImages) -> None:
    for row, reason in list(classified.errors.items())[:MAX_NAMED_FILES]:
        log.warning("%s: %s", escape_unprintable(classified.files[row]), escape_unprintable(reason))
    if (more := len(classified.errors) - MAX_NAMED_FILES) > 0:
        log.warning("%s more have no prediction: the column `error` of predictions.csv says why", f"{more:,}")
