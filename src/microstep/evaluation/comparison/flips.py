"""Samples that one group gets right more often than the other, as a table and as an image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

from microstep.evaluation.comparison.groups import GroupPair
from microstep.evaluation.comparison.predictions_file import SavedPredictions
from microstep.utils.plotting import GREEN, INK, RED, draw_image, new_figure, plain_text, png_bytes
from microstep.utils.tables import csv_bytes
from microstep.utils.text import format_count, sample_caption, truncate_middle

FLIPS_PER_ROW = 8
MAX_FLIPS_SHOWN = 2 * FLIPS_PER_ROW  #: flips of each kind on one image
FLIP_NAME_LETTERS, FLIP_TITLE_LETTERS = 16, 110
NO_CLASS_NAME = "none"  #: of a prediction whose outputs were not finite
CELL_INCHES, BAND_HEAD_INCHES, TITLE_INCHES = 1.62, 0.42, 0.62


@dataclass(frozen=True)
class Flip:
    """A sample that one group gets right more often than the other."""

    index: int  #: in the official split
    label: int
    predictions: Sequence[int]  #: of run and baseline: the most frequent class over seeds, the smallest of equals;
    #: the number of classes if the outputs were not finite
    num_right: Sequence[int]  #: number of seeds of run and baseline that are right
    file: str | None

    @property
    def is_gained(self) -> bool:
        return self.num_right[0] > self.num_right[1]


def find_flips(match: GroupPair) -> list[Flip]:
    """Return the samples that flipped with most seeds first, and of these, those with the highest confidence."""
    report, paired = match.baseline.first.report, match.paired
    assert isinstance(report, SavedPredictions)
    differences = paired.differences.sum(0, dtype=np.int64)
    rows = np.flatnonzero(differences)
    confidence = [group.stack_column("confidence").mean(0)[rows] for group in (match.run, match.baseline)]
    columns = ("labels", "indices") if report.files is None else ("labels", "indices", "files")
    labels, indices, *files = (match.baseline.stack_column(name)[0] for name in columns)
    order = np.lexsort((rows, -np.sum(confidence, axis=0), -np.abs(differences[rows])))
    flips = []
    for row in rows[order].tolist():
        label, sides = int(labels[row]), (paired.run[:, row], paired.baseline[:, row])
        predictions = [int(np.bincount(side).argmax()) for side in sides]
        num_right = [int((side == label).sum()) for side in sides]
        file = str(files[0][row]) if files else None
        flips.append(Flip(int(indices[row]), label, predictions, num_right, file))
    return flips


def format_flips_csv(flips: Sequence[Flip], class_names: tuple[str, ...], seeds: int) -> bytes:
    """Return `index,label,run,baseline,run_right,baseline_right[,file]`: class names, and shares of the seeds."""
    head = ["index", "label", "run", "baseline", "run_right", "baseline_right"]
    with_files = any(flip.file is not None for flip in flips)
    return csv_bytes([head + ["file"] * with_files, *(flip_cells(flip, class_names, seeds) for flip in flips)])


def flip_cells(flip: Flip, class_names: tuple[str, ...], seeds: int) -> list[str]:
    names = [(*class_names, NO_CLASS_NAME)[label] for label in (flip.label, *flip.predictions)]
    shares = [f"{num_right / seeds:g}" for num_right in flip.num_right]
    return [str(flip.index), *names, *shares, *([] if flip.file is None else [flip.file])]


def decisive_flips(flips: Sequence[Flip]) -> list[Flip]:
    """Return the flips that are drawn: the first that the run gained, then the first that it lost."""
    sides = ([flip for flip in flips if flip.is_gained is gained] for gained in (True, False))
    return [flip for side in sides for flip in side[:MAX_FLIPS_SHOWN]]


@plain_text()
def draw_flips(
    flips: Sequence[Flip], images: Tensor, class_names: Sequence[str], seeds: int, names: tuple[str, str]
) -> bytes:
    """Return a PNG of the decisive flips, gained or lost by the run; `images` are theirs: N × C × H × W, in 0…1."""
    drawn = list(zip(decisive_flips(flips), images, strict=True))
    bands = [[pair for pair in drawn if pair[0].is_gained is gained] for gained in (True, False)]
    totals = [sum(flip.is_gained is gained for flip in flips) for gained in (True, False)]
    heights = [BAND_HEAD_INCHES + (CELL_INCHES + 0.2) * -(-len(band) // FLIPS_PER_ROW) for band in bands]
    figure = new_figure(FLIPS_PER_ROW * 1.32, TITLE_INCHES + sum(heights))
    title = (f"{side}: {name}" for side, name in zip(("run", "baseline"), names, strict=True))
    figure.suptitle("\n".join(truncate_middle(line, FLIP_TITLE_LETTERS) for line in title), fontsize=10)
    subfigures: Any = figure.subfigures(2, 1, height_ratios=heights)
    sides = (("run", GREEN), ("baseline", RED))
    for subfigure, band, total, (better, color) in zip(subfigures, bands, totals, sides, strict=True):
        head = f"right with the {better}{' alone' if seeds == 1 else ' more often'}: {format_count(total, 'sample')}"
        note = f", the {len(band)} most decisive shown" if len(band) < total else ""
        subfigure.suptitle(f"{head}{note}", fontsize=10, color=color, x=0.01, ha="left")
        draw_band(subfigure, band, class_names, seeds)
    return png_bytes(figure)


def draw_band(
    subfigure: Figure | SubFigure, band: Sequence[tuple[Flip, Tensor]], class_names: Sequence[str], seeds: int
) -> None:
    rows, names = -(-len(band) // FLIPS_PER_ROW), (*class_names, NO_CLASS_NAME)
    for index, (flip, image) in enumerate(band):
        axes = subfigure.add_subplot(rows, FLIPS_PER_ROW, index + 1)
        labels = (flip.label, *flip.predictions)
        true, *predicted = (truncate_middle(names[label], FLIP_NAME_LETTERS - 4) for label in labels)
        shares = [f" ({num_right} of {seeds})" if seeds > 1 else "" for num_right in flip.num_right]
        lines = [f"true {true}{sample_caption(flip.file, flip.index, FLIP_NAME_LETTERS + 4)}"]
        lines += map("".join, zip(("run ", "baseline "), predicted, shares, strict=True))
        draw_image(axes, image.numpy(), 0, 0, 1)
        axes.set_axis_off()
        axes.set_title("\n".join(lines), fontsize=7.5, color=INK)
