"""Predictions for images without labels, as a table."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from microstep.errors import escape_unprintable
from microstep.types.data import Answer
from microstep.utils.tables import csv_bytes

log = logging.getLogger("microstep.notice")
MAX_NAMED_FILES = 10  #: images without a prediction that warnings name
MAX_COUNTED_CLASSES = 6  #: classes counted on the terminal


@dataclass(frozen=True)
class ClassifiedImages:
    """Predictions for M of N images, and why the others have none."""

    files: Sequence[str]  #: N
    answers: Mapping[int, Answer]  #: M, by index in `files`, at least 1
    errors: Mapping[int, str]  #: error message by index in `files`

    @property
    def rows(self) -> list[int]:
        """M indices in `files`."""
        return list(self.answers)


def format_predictions_csv(classified: ClassifiedImages) -> bytes:
    """Return `file,class_1,confidence_1,…,error` with a row for each image; bytes that are not UTF-8 become \\udcXX."""
    answers, errors = classified.answers, classified.errors
    none = dict.fromkeys(next(iter(answers.values())).cells, "")
    found = {n: answers[n].cells if n in answers else none for n in range(len(classified.files))}
    rows = ([file, *found[n].values(), errors.get(n, "")] for n, file in enumerate(classified.files))
    return csv_bytes([["file", *none, "error"], *rows])


def format_class_counts(classified: ClassifiedImages) -> str:
    found = Counter(name for answer in classified.answers.values() for name in answer.names).most_common()
    line = ", ".join(f"{escape_unprintable(name)} {count:,}" for name, count in found[:MAX_COUNTED_CLASSES])
    others = sum(count for _, count in found[MAX_COUNTED_CLASSES:])
    return f"{line}, {others:,} of other classes" if others else line


def warn_errors(classified: ClassifiedImages) -> None:
    for row, reason in list(classified.errors.items())[:MAX_NAMED_FILES]:
        log.warning("%s: %s", escape_unprintable(classified.files[row]), escape_unprintable(reason))
    if (more := len(classified.errors) - MAX_NAMED_FILES) > 0:
        log.warning("%s more have no prediction: the column `error` of predictions.csv says why", f"{more:,}")
