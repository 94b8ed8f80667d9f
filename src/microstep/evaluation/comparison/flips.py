"""Samples whose decision differs between two groups, as a table and as a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

from microstep.evaluation.comparison.groups import GroupPair
from microstep.evaluation.comparison.paired import Array, PairedPredictions
from microstep.evaluation.comparison.predictions_file import SavedPredictions
from microstep.utils.plotting import GREEN, INK, RED, draw_image, new_figure, plain_text, png_bytes
from microstep.utils.tables import csv_bytes
from microstep.utils.text import format_count, sample_caption, truncate_middle


@dataclass(frozen=True)
class SidePredictions:
    """What one setting says of a sample, over its seeds."""

    prediction: int  #: the most frequent; of equally frequent ones the smallest
    right: int  #: seeds that are right


@dataclass(frozen=True)
class Flip:
    """A sample that one setting gets right more often than the other."""

    index: int  #: in the official split
    label: int
    run: SidePredictions
    baseline: SidePredictions
    file: str | None

    @property
    def gained(self) -> bool:
        """Whether the run is the better one."""
        return self.run.right > self.baseline.right


def find_flips(match: GroupPair) -> list[Flip]:
    """Return the samples that flipped, the most decisive first.

    That is: those on which most seeds flipped, and of these the ones where both sides were the most confident.
    """
    report, paired = match.baseline.first.report, match.paired
    differences = paired.differences.sum(0, dtype=np.int64)
    rows = np.flatnonzero(differences)
    confidence = [setting.stacked("confidence").mean(0)[rows] for setting in (match.run, match.baseline)]
    order = np.lexsort((rows, -np.sum(confidence, axis=0), -np.abs(differences[rows])))
    return [make_flip(report, paired, row) for row in rows[order].tolist()]


def make_flip(report: SavedPredictions, paired: PairedPredictions, row: int) -> Flip:
    """Return what both sides say of a sample."""
    label = int(report.labels[row])
    run, baseline = (summarize_seeds(answers[:, row], label) for answers in (paired.run, paired.baseline))
    return Flip(int(report.indices[row]), label, run, baseline, None if report.files is None else report.files[row])


def summarize_seeds(predictions: Array, label: int) -> SidePredictions:
    """Return what a setting's seeds say of a sample."""
    return SidePredictions(int(np.bincount(predictions).argmax()), int((predictions == label).sum()))


def format_flips_csv(flip_list: list[Flip], class_names: tuple[str, ...], seeds: int) -> bytes:
    """Return `index,label,run,baseline,run_right,baseline_right[,file]`: names of classes, and shares of the seeds."""
    filed = ["file"] if any(one.file is not None for one in flip_list) else []
    head = ["index", "label", "run", "baseline", "run_right", "baseline_right", *filed]
    return csv_bytes([head, *(iter_flip_cells(one, class_names, seeds) for one in flip_list)])


def iter_flip_cells(flip_sample: Flip, class_names: tuple[str, ...], seeds: int) -> Iterator[str]:
    yield str(flip_sample.index)
    yield from (
        class_names[which] for which in (flip_sample.label, flip_sample.run.prediction, flip_sample.baseline.prediction)
    )
    yield from (f"{side.right / seeds:g}" for side in (flip_sample.run, flip_sample.baseline))
    yield from () if flip_sample.file is None else (flip_sample.file,)


FLIPS_PER_ROW = 8
MAX_FLIPS_SHOWN = 2 * FLIPS_PER_ROW  #: flips of each kind on one picture
FLIP_NAME_LETTERS, FLIP_TITLE_LETTERS = 16, 110
CELL_INCHES, BAND_HEAD_INCHES, TITLE_INCHES = 1.62, 0.42, 0.62  #: inches


def decisive_flips(flip_list: Sequence[Flip]) -> list[Flip]:
    """Return those that are drawn: the most decisive that the run gets right, then those that the baseline does."""
    sides = ([one for one in flip_list if one.gained], [one for one in flip_list if not one.gained])
    return [one for side in sides for one in side[:MAX_FLIPS_SHOWN]]


@plain_text()
def draw_flips(
    flip_list: Sequence[Flip], images: Tensor, class_names: Sequence[str], seeds: int, names: tuple[str, str]
) -> bytes:
    """Return a PNG of some flips, in two bands: what the run gained, and what it lost.

    Args:
        flip_list: all flips; `images` are those of `chosen(found)`: N × C × H × W, in 0…1.
        names: of run and baseline.
    """
    drawn = list(zip(decisive_flips(flip_list), images, strict=True))
    bands = [[pair for pair in drawn if pair[0].gained is gained] for gained in (True, False)]
    totals = [sum(one.gained is gained for one in flip_list) for gained in (True, False)]
    heights = [BAND_HEAD_INCHES + (CELL_INCHES + 0.2) * -(-len(band) // FLIPS_PER_ROW) for band in bands]
    figure = new_figure(FLIPS_PER_ROW * 1.32, TITLE_INCHES + sum(heights))
    title = (
        truncate_middle(f"{side}: {name}", FLIP_TITLE_LETTERS)
        for side, name in zip(("run", "baseline"), names, strict=True)
    )
    figure.suptitle("\n".join(title), fontsize=10)
    parts: Any = figure.subfigures(2, 1, height_ratios=heights)
    words = (("run", GREEN), ("baseline", RED))
    for part, band, total, (better, color) in zip(parts, bands, totals, words, strict=True):
        head = f"right with the {better}{' alone' if seeds == 1 else ' more often'}: {format_count(total, 'sample')}"
        note = f", the {len(band)} most decisive shown" if len(band) < total else ""
        part.suptitle(f"{head}{note}", fontsize=10, color=color, x=0.01, ha="left")
        draw_band(part, band, class_names, seeds)
    return png_bytes(figure)


def draw_band(
    subfigure: Figure | SubFigure, band: Sequence[tuple[Flip, Tensor]], class_names: Sequence[str], seeds: int
) -> None:
    """Draw samples in rows, each under its class and what either side took it for."""
    rows = -(-len(band) // FLIPS_PER_ROW)
    for index, (one, image) in enumerate(band):
        axes = subfigure.add_subplot(rows, FLIPS_PER_ROW, index + 1)
        truth = f"true {truncate_middle(class_names[one.label], FLIP_NAME_LETTERS - 4)}"
        head = truth + sample_caption(one.file, one.index, FLIP_NAME_LETTERS + 4)
        sides = (
            format_prediction("run", one.run, class_names, seeds),
            format_prediction("baseline", one.baseline, class_names, seeds),
        )
        draw_image(axes, image.numpy(), 0, 0, 1)
        axes.set_axis_off()
        axes.set_title("\n".join([head, *sides]), fontsize=7.5, color=INK)


def format_prediction(who: str, side: SidePredictions, class_names: Sequence[str], seeds: int) -> str:
    """Return what a side took a sample for; of several seeds, how many are right."""
    share = f" ({side.right} of {seeds})" if seeds > 1 else ""
    return f"{who} {truncate_middle(class_names[side.prediction], FLIP_NAME_LETTERS - 4)}{share}"
