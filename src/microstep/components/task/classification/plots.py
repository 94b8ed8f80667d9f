"""The pictures of a classification report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy.stats import binomtest
from torch import Tensor

from microstep.types.data import Predictions
from microstep.utils.plotting import BLUE, GREY, LIGHT_BLUE, draw_image, pixel_axes, pixel_figure, plain_text, png_bytes
from microstep.utils.text import sample_caption, truncate_middle

MAX_NUMBERED_CLASSES = 30  #: classes up to which each cell of the matrix bears its number
MAX_MISTAKES = 16  #: worst mistakes on one picture
MISTAKE_NAME_LETTERS = 26  #: of a name under it
CLASS_NAME_LETTERS = 40  #: letters of a class's name beside the matrix
MAX_AXIS_LABELS = 60  #: names beside it, at most: of more classes each second, each third, …
CELL_PIXELS = 60  #: pixels of a class's cell, where there is room
GRID_COLUMNS, GRID_IMAGE_PIXELS, GRID_GAP_PIXELS = 4, 224, 22  #: worst mistakes in a row; pixels of one; between two


@plain_text()
def draw_confusion(matrix: np.ndarray, class_names: Sequence[str], file: Path) -> None:
    """Draw counts, coloured by the share of their row, so that rare classes can be read as well."""
    every = -(-len(class_names) // MAX_AXIS_LABELS)
    ticks, names = (
        range(0, len(class_names), every),
        [truncate_middle(name, CLASS_NAME_LETTERS) for name in class_names[::every]],
    )
    margin, side = 50 + measure_widest(names), min(max(400, CELL_PIXELS * len(class_names)), 1400)
    figure = pixel_figure(margin + side + 130, margin + side + 40)
    axes = pixel_axes(figure, margin, 30, side, side)
    share = matrix / np.maximum(1, matrix.sum(1, keepdims=True))
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, cax=pixel_axes(figure, margin + side + 40, 30, 40, side))
    axes.set_xticks(ticks, names, rotation="vertical")
    axes.set_yticks(ticks, names)
    if len(class_names) <= MAX_NUMBERED_CLASSES:
        write_numbers(axes, matrix, share)
    right = f"{np.trace(matrix)} of {matrix.sum()} right"
    title = f"{file.parent.name}: {right}; colour is the share of the true class"
    axes.set(xlabel="Predicted label", ylabel="True label", title=title)
    file.write_bytes(png_bytes(figure))


def write_numbers(axes: Axes, matrix: np.ndarray, share: np.ndarray) -> None:
    """Write each count that is not zero into its cell."""
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            color = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=color, fontsize=9)


@plain_text()
def draw_worst_mistakes(
    predictions: Predictions, predicted: Tensor, probabilities: Tensor, class_names: Sequence[str], file: Path
) -> bool:
    """Draw the mistakes that were made with the most confidence; say whether the samples are pictures at all."""
    wrong = (predicted != predictions.targets).nonzero().flatten()
    confidence = probabilities[wrong, predicted[wrong]]
    rows = wrong[confidence.argsort(descending=True, stable=True)[:MAX_MISTAKES]].tolist()
    images = predictions.pictures(rows)
    if images is None:
        return False
    headline = f"{file.parent.name}: {len(wrong)} mistakes" + (", the most confident first" if rows else "")
    names = [truncate_middle(name, MISTAKE_NAME_LETTERS) for name in class_names]
    files = [None] * len(predicted) if predictions.files is None else predictions.files
    found_by = (sample_caption(files[row], int(predictions.indices[row]), MISTAKE_NAME_LETTERS) for row in rows)
    captions = [
        f"{names[int(predicted[row])]} ({probabilities[row, predicted[row]]:.0%})\n"
        f"true: {names[int(predictions.targets[row])]}{found}"
        for row, found in zip(rows, found_by, strict=True)
    ]
    file.write_bytes(png_bytes(draw_image_grid(images, captions, headline)))
    return True


def draw_image_grid(images: Tensor, captions: Sequence[str], headline: str) -> Figure:
    """Return N × C × H × W images in 0…1, four in a row, under their captions: on one axes, for each costs time."""
    caption = 16 * max((words.count("\n") + 1 for words in captions), default=0) + 14
    width, height = (
        GRID_COLUMNS * (GRID_IMAGE_PIXELS + GRID_GAP_PIXELS) + GRID_GAP_PIXELS,
        30 + max(1, -(-len(captions) // GRID_COLUMNS)) * (GRID_IMAGE_PIXELS + caption),
    )
    figure = pixel_figure(width, height)
    axes = pixel_axes(figure, 0, 0, width, height)
    axes.set_axis_off()
    axes.text(width / 2, 16, headline, ha="center", va="center", fontsize=12)
    for index, (image, text) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(index, GRID_COLUMNS)
        left, top = (
            GRID_GAP_PIXELS + column * (GRID_IMAGE_PIXELS + GRID_GAP_PIXELS),
            30 + caption + row * (GRID_IMAGE_PIXELS + caption),
        )
        axes.text(left + GRID_IMAGE_PIXELS / 2, top - 6, text, ha="center", va="bottom", fontsize=9)
        draw_image(axes, image.numpy(), left + GRID_IMAGE_PIXELS / 2, top + GRID_IMAGE_PIXELS / 2, GRID_IMAGE_PIXELS)
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="auto")
    return figure


def measure_widest(names: Sequence[str]) -> int:
    """Return how many pixels the widest of these labels takes."""
    figure = pixel_figure(1, 1)
    return max(int(figure.text(0, 0, name).get_window_extent().width) for name in names)


NUM_BINS = 15  #: of equal width, as Guo et al. have them
CALIBRATION_HEADER = ("above", "up_to", "count", "confidence", "accuracy", "accuracy_low", "accuracy_high")


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """The samples whose confidence lies between two bounds."""

    above: float
    up_to: float
    count: int
    confidence: float  #: their mean
    right: int

    @property
    def accuracy(self) -> float:
        """The share that is right."""
        return self.right / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the accuracy: of few samples it is wide."""
        low, high = binomtest(self.right, self.count).proportion_ci(method="wilson")
        return float(low), float(high)


def bin_confidences(confidence: Tensor, right: Tensor) -> list[CalibrationBin]:
    """Return the bins of confidences in 0…1 that have samples; a bin has its upper bound, and 0 is in the first."""
    bin_indices = np.clip(np.ceil(np.nan_to_num(confidence.numpy()) * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)
    counts, sums, hits = (
        np.bincount(bin_indices, w, NUM_BINS) for w in (None, confidence.numpy(), right.double().numpy())
    )
    return [
        CalibrationBin(n / NUM_BINS, (n + 1) / NUM_BINS, int(counts[n]), float(sums[n] / counts[n]), int(hits[n]))
        for n in np.flatnonzero(counts)
    ]


def expected_calibration_error(bins: list[CalibrationBin]) -> float:
    """Return the expected calibration error (Guo et al., ICML 2017): by how much confidence and accuracy differ."""
    return sum(b.count * abs(b.accuracy - b.confidence) for b in bins) / sum(b.count for b in bins)


def calibration_rows(bins: list[CalibrationBin]) -> Iterator[list[str]]:
    """Yield a row a bin, as HEADER has it."""
    for b in bins:
        shares = [f"{share:.6f}" for share in (b.confidence, b.accuracy, *b.interval)]
        yield [f"{b.above:.6f}", f"{b.up_to:.6f}", str(b.count), *shares]


@plain_text()
def draw_reliability(bins: list[CalibrationBin], file: Path) -> None:
    """Draw each bin's accuracy with its interval over its mean confidence, and how many samples it has."""
    figure = pixel_figure(660, 660)
    upper, lower = pixel_axes(figure, 72, 34, 570, 420), pixel_axes(figure, 72, 484, 570, 124)
    draw_accuracy_panel(upper, bins)
    lower.bar([b.above for b in bins], [b.count for b in bins], 1 / NUM_BINS, align="edge", color=BLUE, edgecolor="w")
    lower.set(xlim=(0, 1), xlabel="confidence", ylabel="samples")
    upper.set_title(
        f"{file.parent.name}: expected calibration error {expected_calibration_error(bins):.4f}", fontsize=11
    )
    file.write_bytes(png_bytes(figure))


def draw_accuracy_panel(axes: Axes, bins: list[CalibrationBin]) -> None:
    """Draw what is to be read against the diagonal: below it the model is too sure of itself."""
    for b in bins:
        axes.add_patch(Rectangle((b.above, 0), 1 / NUM_BINS, b.accuracy, facecolor=LIGHT_BLUE, edgecolor="w"))
    confidence, accuracy = [b.confidence for b in bins], [b.accuracy for b in bins]
    below, beyond = zip(*[(b.accuracy - b.interval[0], b.interval[1] - b.accuracy) for b in bins], strict=True)
    axes.plot((0, 1), (0, 1), color=GREY, linewidth=1, linestyle="--")
    axes.errorbar(confidence, accuracy, np.maximum(0, (below, beyond)), fmt="o", color=BLUE, markersize=4)
    axes.set(xlim=(0, 1), ylim=(-0.02, 1.02), ylabel="accuracy, with its 95 % interval")
