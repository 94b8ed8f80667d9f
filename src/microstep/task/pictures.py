"""The pictures of a classification report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any
from warnings import catch_warnings, filterwarnings

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay
from torch import Tensor

from microstep.files import shortened
from microstep.types import Predictions

NUMBERED = 30  #: classes up to which each cell of the matrix bears its number
SHOWN = 16  #: worst mistakes on one picture
LETTERS = 26  #: of a file's name under it


@contextmanager
def plain_text() -> Iterator[None]:
    """Draw class names as they are: a $ starts no formula, and a glyph that the font lacks is a box, not a warning."""
    with rc_context({"text.parse_math": False}), catch_warnings():
        filterwarnings("ignore", message="Glyph .* missing from font")
        yield


@plain_text()
def draw_confusion(matrix: np.ndarray, class_names: Sequence[str], file: Path) -> None:
    """Draw counts, coloured by the share of their row, so that rare classes can be read as well."""
    classes = len(class_names)
    side = min(16.0, 2.5 + 0.55 * classes)
    figure = new_figure(side + 1, side)
    axes = figure.add_subplot()
    share = matrix / np.maximum(1, matrix.sum(1, keepdims=True))
    ConfusionMatrixDisplay(share, display_labels=list(class_names)).plot(
        ax=axes, cmap="Blues", include_values=False, im_kw={"vmin": 0, "vmax": 1}, xticks_rotation="vertical"
    )
    if classes <= NUMBERED:
        write_numbers(axes, matrix, share)
    right = int(np.trace(matrix))
    axes.set_title(f"{file.parent.name}: {right} of {int(matrix.sum())} right; colour is the share of the true class")
    save(figure, file)


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
    rows = wrong[confidence.argsort(descending=True, stable=True)[:SHOWN]].tolist()
    images = predictions.pictures(rows)
    if images is None:
        return False
    figure = new_figure(9, 0.9 + 2.3 * max(1, -(-len(rows) // 4)))
    figure.suptitle(f"{file.parent.name}: {len(wrong)} mistakes" + (", the most confident first" if rows else ""))
    for place, (row, image) in enumerate(zip(rows, images, strict=True)):
        axes = figure.add_subplot(-(-len(rows) // 4), 4, place + 1)
        truth, guess = (class_names[int(labels[row])] for labels in (predictions.targets, predicted))
        caption = f"{guess} ({probabilities[row, predicted[row]]:.0%})\ntrue: {truth}"
        draw_image(axes, image, f"{caption}{found_by(predictions, row)}")
    save(figure, file)
    return True


def found_by(predictions: Predictions, row: int) -> str:
    """Return what a person finds a sample by: its file, else its index."""
    if predictions.files is None:
        return f", #{int(predictions.indices[row])}"
    return f"\n{shortened(Path(predictions.files[row]).name, LETTERS)}"


def draw_image(axes: Axes, image: Tensor, caption: str) -> None:
    """Draw a C × H × W image in 0…1."""
    pixels = image.permute(1, 2, 0).numpy()
    axes.imshow(pixels[..., 0] if pixels.shape[-1] == 1 else pixels, cmap="gray", vmin=0, vmax=1)
    axes.set_title(caption, fontsize=9)
    axes.set_axis_off()


def new_figure(width: float, height: float) -> Figure:
    """Return a figure of its own: pyplot's global state has no part in it."""
    figure = Figure(figsize=(width, height), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    return figure


def save(figure: Any, file: Path | BytesIO) -> None:
    figure.savefig(file, metadata={"Software": None})
