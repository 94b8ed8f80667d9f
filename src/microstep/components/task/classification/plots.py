"""Plots of a classification report: confusion matrix, worst mistakes, reliability diagram."""

from collections.abc import Sequence
from functools import lru_cache
from operator import add
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from scipy.stats import binomtest
from torch import Tensor

import microstep.utils.plotting as plotting
from microstep.components.task.classification.extra_metrics import NUM_BINS
from microstep.types.data import Predictions
from microstep.utils.text import sample_caption, truncate_middle

NO_CLASS = -1  #: prediction of a sample whose outputs are not finite
MAX_NUMBERED_CLASSES = 30  #: with more classes, the cells of the matrix show no counts
MAX_MISTAKES = 16  #: mistakes in one image
MISTAKE_NAME_LETTERS = 26  #: of a class or file name in a caption
CLASS_NAME_LETTERS = 40  #: of a class name on an axis of the matrix
MAX_AXIS_LABELS = 60  #: with more classes, every second, third, … name is shown
CELL_PIXELS = 60  #: side of a cell, if the matrix has room
GRID_COLUMNS, GRID_IMAGE_PIXELS, GRID_GAP_PIXELS = 4, 224, 22  #: mistakes in a row; pixels of one; pixels between two


@plotting.plain_text()
def draw_confusion(matrix: np.ndarray, class_names: Sequence[str], file: Path) -> None:
    """Draw counts, colored by their share of the true class, so that rare classes are visible, too."""
    (axes,) = (template := make_confusion_template(tuple(class_names))).axes
    share = matrix / np.maximum(1, matrix.sum(1, keepdims=True))
    axes.imshow(colormaps["Blues"](share, bytes=True))
    if len(class_names) <= MAX_NUMBERED_CLASSES:
        write_numbers(axes, matrix, share)
    title = f"{file.parent.name}: {np.trace(matrix)} of {matrix.sum()} right; colour is the share of the true class"
    axes.set_title(title)
    file.write_bytes(template.png_bytes())


@lru_cache(4)
def make_confusion_template(class_names: tuple[str, ...]) -> plotting.Template:
    ticks = range(0, len(class_names), -(-len(class_names) // MAX_AXIS_LABELS))
    names = [truncate_middle(class_names[tick], CLASS_NAME_LETTERS) for tick in ticks]
    margin, side = 50 + measure_widest(names), min(max(400, CELL_PIXELS * len(class_names)), 1400)
    figure = plotting.pixel_figure(margin + side + 130, margin + side + 40)
    axes = plotting.pixel_axes(figure, margin, 30, side, side)
    figure.colorbar(ScalarMappable(cmap="Blues"), cax=plotting.pixel_axes(figure, margin + side + 40, 30, 40, side))
    axes.set_xticks(ticks, names, rotation="vertical")
    axes.set_yticks(ticks, names)
    edge = len(class_names) - 0.5
    axes.set(xlabel="Predicted label", ylabel="True label", xlim=(-0.5, edge), ylim=(edge, -0.5))
    return plotting.Template([axes], axes.title)


def write_numbers(axes: Axes, matrix: np.ndarray, share: np.ndarray) -> None:
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            color = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=color, fontsize=9)


def draw_worst_mistakes(
    predictions: Predictions, predicted: Tensor, probabilities: Tensor, class_names: Sequence[str], file: Path
) -> bool:
    """Draw the mistakes with the highest confidence. Return False if the samples are not images."""
    wrong = ((predicted != predictions.targets) & (predicted != NO_CLASS)).nonzero().flatten()
    confidence = probabilities[wrong, predicted[wrong]]
    rows = wrong[confidence.argsort(descending=True, stable=True)[:MAX_MISTAKES]].tolist()
    headline = f"{file.parent.name}: {len(wrong)} mistakes" + (", the most confident first" if rows else "")
    names = [truncate_middle(name, MISTAKE_NAME_LETTERS) for name in class_names]
    captions = [
        f"{names[int(predicted[row])]} ({probabilities[row, predicted[row]]:.0%})\n"
        f"true: {names[int(predictions.targets[row])]}"
        for row in rows
    ]
    return draw_samples(predictions, rows, captions, headline, file)


@plotting.plain_text()
def draw_samples(
    predictions: Predictions, rows: Sequence[int], captions: Sequence[str], headline: str, file: Path
) -> bool:
    """Draw the samples of some rows below captions and file names. Return False if they are not images."""
    if (images := predictions.images(rows)) is None:
        return False
    files = [None] * len(predictions.indices) if predictions.files is None else predictions.files
    found_by = [sample_caption(files[row], int(predictions.indices[row]), MISTAKE_NAME_LETTERS) for row in rows]
    file.write_bytes(plotting.png_bytes(draw_image_grid(images, list(map(add, captions, found_by)), headline)))
    return True


def draw_image_grid(images: Tensor, captions: Sequence[str], headline: str, columns: int = GRID_COLUMNS) -> Figure:
    """Return a figure of N × C × H × W images in 0…1 below their captions. One axes for all saves time."""
    caption_height = 16 * max((caption.count("\n") + 1 for caption in captions), default=0) + 14
    column_width, row_height = GRID_IMAGE_PIXELS + GRID_GAP_PIXELS, GRID_IMAGE_PIXELS + caption_height
    width = columns * column_width + GRID_GAP_PIXELS
    height = 30 + max(1, -(-len(captions) // columns)) * row_height
    figure = plotting.pixel_figure(width, height)
    axes = plotting.pixel_axes(figure, 0, 0, width, height)
    axes.set_axis_off()
    axes.text(width / 2, 16, headline, ha="center", va="center", fontsize=12)
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(index, columns)
        center = GRID_GAP_PIXELS + column * column_width + GRID_IMAGE_PIXELS / 2
        top = 30 + caption_height + row * row_height
        axes.text(center, top - 6, caption, ha="center", va="bottom", fontsize=9)
        plotting.draw_image(axes, image.numpy(), center, top + GRID_IMAGE_PIXELS / 2, GRID_IMAGE_PIXELS)
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="auto")
    return figure


def measure_widest(names: Sequence[str]) -> int:
    """Return the width of the widest label in pixels."""
    figure = plotting.pixel_figure(1, 1)
    return max(int(figure.text(0, 0, name).get_window_extent().width) for name in names)


Bins = dict[str, np.ndarray]  #: the columns of calibration.csv, one value for each bin that has samples


def bin_confidences(confidence: Tensor, right: Tensor) -> Bins:
    """Return the bins of a reliability diagram. A bin holds the confidences in (above, up_to], the first also 0.

    The interval of the accuracy is that of Wilson (1927), for 95 %.
    """
    bin_indices = np.clip(np.ceil(confidence.numpy() * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)
    weights = (None, confidence.numpy(), right.double().numpy())
    totals = np.stack([np.bincount(bin_indices, w, NUM_BINS) for w in weights])
    index = np.flatnonzero(totals[0])
    count, confidence_sum, num_right = totals[:, index]
    tests = (binomtest(int(k), int(n)) for k, n in zip(num_right, count, strict=True))
    low, high = np.transpose([test.proportion_ci(method="wilson") for test in tests])
    bounds = {"above": index / NUM_BINS, "up_to": (index + 1) / NUM_BINS, "count": count.astype(int)}
    shares = {"confidence": confidence_sum / count, "accuracy": num_right / count}
    return bounds | shares | {"accuracy_low": low, "accuracy_high": high}


def expected_calibration_error(bins: Bins) -> float:
    """Return the mean distance of confidence and accuracy, weighted by samples (Guo et al., ICML 2017)."""
    return float(np.average(np.abs(bins["accuracy"] - bins["confidence"]), weights=bins["count"]))


@plotting.plain_text()
def draw_reliability(bins: Bins, file: Path, note: str = "") -> None:
    upper, lower = (template := make_reliability_template()).axes
    draw_accuracy_panel(upper, bins)
    lower.bar(bins["above"], bins["count"], 1 / NUM_BINS, align="edge", color=plotting.BLUE, edgecolor="w")
    lower.set_ylim(0, 1.05 * bins["count"].max())
    title = f"{file.parent.name}: expected calibration error {expected_calibration_error(bins):.4f}{note}"
    upper.set_title(title, fontsize=11)
    file.write_bytes(template.png_bytes())


@lru_cache
def make_reliability_template() -> plotting.Template:
    figure = plotting.pixel_figure(660, 660)
    upper, lower = plotting.pixel_axes(figure, 72, 34, 570, 420), plotting.pixel_axes(figure, 72, 484, 570, 124)
    upper.set(xlim=(0, 1), ylim=(-0.02, 1.02), ylabel="accuracy, with its 95 % interval")
    lower.set(xlim=(0, 1), xlabel="confidence", ylabel="samples")
    return plotting.Template([upper, lower], upper.title, lower.yaxis)


def draw_accuracy_panel(axes: Axes, bins: Bins) -> None:
    """Draw accuracies with intervals. Below the diagonal, the model is overconfident."""
    accuracy = bins["accuracy"]
    axes.bar(bins["above"], accuracy, 1 / NUM_BINS, align="edge", color=plotting.LIGHT_BLUE, edgecolor="w")
    axes.plot((0, 1), (0, 1), color=plotting.GREY, linewidth=1, linestyle="--")
    errors = np.maximum(0, (accuracy - bins["accuracy_low"], bins["accuracy_high"] - accuracy))
    axes.errorbar(bins["confidence"], accuracy, errors, fmt="o", color=plotting.BLUE, markersize=4)
