"""What a classifier says of pictures without labels: a table of the likeliest classes."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from microstep.errors import escape_unprintable
from microstep.utils.tables import csv_bytes

log = logging.getLogger("microstep.notice")
TOP_K = 5  #: classes told of each picture
MAX_NAMED_FILES = 10  #: unreadable pictures warned about by name
MAX_COUNTED_CLASSES = 6  #: classes counted on the terminal


@dataclass(frozen=True)
class ClassifiedImages:
    """Of N pictures: the k likeliest classes of each of the M that could be read, and why the others couldn't."""

    files: Sequence[str]  #: N
    class_names: tuple[str, ...]
    rows: Tensor  #: M, int64: the place in `files` of each picture that could be read
    classes: Tensor  #: M × k, int64: the likeliest first
    confidence: Tensor  #: M × k, float64, in 0…1
    unreadable: Mapping[int, str]  #: by place in `files`

    def top(self, row: int) -> tuple[str, float]:
        """Return the likeliest class of the row-th readable picture, and its confidence."""
        return self.class_names[int(self.classes[row, 0])], float(self.confidence[row, 0])


def top_classes(outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the likeliest classes of N × C outputs and their confidences, on the CPU; of equals the first wins."""
    probabilities = outputs.cpu().double().softmax(1)
    confidence, classes = probabilities.sort(dim=1, descending=True, stable=True)
    return classes[:, :TOP_K].clone(), confidence[:, :TOP_K].clone()  # all of them would stay in memory


def format_predictions_csv(classified: ClassifiedImages) -> bytes:
    """Return `file,class_1,confidence_1,…,error`, a row a picture; bytes of a name that are no UTF-8 become \\udcXX."""
    k, told = (
        classified.classes.shape[1],
        dict(zip(classified.rows.tolist(), iter_prediction_cells(classified), strict=True)),
    )
    head = ["file", *(f"{name}_{i}" for i in range(1, k + 1) for name in ("class", "confidence")), "error"]
    rows = (
        [file, *told.get(n, [""] * 2 * k), classified.unreadable.get(n, "")] for n, file in enumerate(classified.files)
    )
    return csv_bytes([head, *rows])


def iter_prediction_cells(classified: ClassifiedImages) -> Iterator[list[str]]:
    """Yield class, confidence, class, confidence, … of each picture that could be read."""
    for pairs in zip(classified.classes.tolist(), classified.confidence.tolist(), strict=True):
        yield [cell for c, p in zip(*pairs, strict=True) for cell in (classified.class_names[c], f"{p:.6f}")]


def format_class_counts(classified: ClassifiedImages) -> str:
    """Return how often each class is the likeliest, the most frequent first, in one line."""
    found = Counter(classified.classes[:, 0].tolist()).most_common()
    line = ", ".join(f"{classified.class_names[c]} {count:,}" for c, count in found[:MAX_COUNTED_CLASSES])
    others = sum(count for _, count in found[MAX_COUNTED_CLASSES:])
    return f"{line}, {others:,} of other classes" if others else line


def warn_unreadable(classified: ClassifiedImages) -> None:
    """Warn of pictures that could not be read, a line each; of many, of the first few."""
    for row, reason in list(classified.unreadable.items())[:MAX_NAMED_FILES]:
        log.warning("%s: %s", escape_unprintable(classified.files[row]), escape_unprintable(reason))
    if (more := len(classified.unreadable) - MAX_NAMED_FILES) > 0:
        log.warning("%s more can't be read: the column `error` of predictions.csv says why", f"{more:,}")
