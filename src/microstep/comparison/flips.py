"""The samples that flipped: one side gets them right, the other doesn't."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from microstep.comparison.paired import Array, Paired
from microstep.comparison.reports import Report
from microstep.comparison.settings import Match
from microstep.utils.tables import csv_bytes


@dataclass(frozen=True)
class Side:
    """What one setting says of a sample, over its seeds."""

    prediction: int  #: the most frequent; of equally frequent ones the smallest
    right: int  #: seeds that are right


@dataclass(frozen=True)
class Flip:
    """A sample that one setting gets right more often than the other."""

    index: int  #: in the official split
    label: int
    run: Side
    baseline: Side
    file: str | None

    @property
    def gained(self) -> bool:
        """Whether the run is the better one."""
        return self.run.right > self.baseline.right


def flips(match: Match) -> list[Flip]:
    """Return the samples that flipped, the most decisive first.

    That is: those on which most seeds flipped, and of these the ones where both sides were the most confident.
    """
    report, paired = match.baseline.first.report, match.paired
    differences = paired.differences.sum(0, dtype=np.int64)
    rows = np.flatnonzero(differences)
    confidence = [setting.stacked("confidence").mean(0)[rows] for setting in (match.run, match.baseline)]
    order = np.lexsort((rows, -np.sum(confidence, axis=0), -np.abs(differences[rows])))
    return [flip(report, paired, row) for row in rows[order].tolist()]


def flip(report: Report, paired: Paired, row: int) -> Flip:
    """Return what both sides say of a sample."""
    label = int(report.labels[row])
    run, baseline = (side(answers[:, row], label) for answers in (paired.run, paired.baseline))
    return Flip(int(report.indices[row]), label, run, baseline, None if report.files is None else report.files[row])


def side(answers: Array, label: int) -> Side:
    """Return what a setting's seeds say of a sample."""
    return Side(int(np.bincount(answers).argmax()), int((answers == label).sum()))


def flips_csv(found: list[Flip], class_names: tuple[str, ...], seeds: int) -> bytes:
    """Return `index,label,run,baseline,run_right,baseline_right[,file]`: names of classes, and shares of the seeds."""
    filed = ["file"] if any(one.file is not None for one in found) else []
    head = ["index", "label", "run", "baseline", "run_right", "baseline_right", *filed]
    return csv_bytes([head, *(cells(one, class_names, seeds) for one in found)])


def cells(one: Flip, class_names: tuple[str, ...], seeds: int) -> Iterator[str]:
    yield str(one.index)
    yield from (class_names[which] for which in (one.label, one.run.prediction, one.baseline.prediction))
    yield from (f"{side.right / seeds:g}" for side in (one.run, one.baseline))
    yield from () if one.file is None else (one.file,)
