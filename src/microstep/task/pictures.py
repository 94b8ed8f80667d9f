"""The pictures of a classification report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from warnings import catch_warnings, filterwarnings

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from microstep.files import shortened
from microstep.types import Predictions

NUMBERED = 30  #: classes up to which each cell of the matrix bears its number
SHOWN = 16  #: worst mistakes on one picture
LETTERS = 26  #: of a name under it
LABEL = 40  #: letters of a class's name beside the matrix
NAMED = 60  #: names beside it, at most: of more classes each second, each third, …
CELL = 60  #: pixels of a class's cell, where there is room
DPI = 110
COLUMNS, SIDE, GAP = 4, 224, 22  #: worst mistakes in a row; pixels of one; between two


@contextmanager
def plain_text() -> Iterator[None]:
    """Draw class names as they are: a $ starts no formula, and a glyph that the font lacks is a box, not a warning."""
    with rc_context({"text.parse_math": False}), catch_warnings():
        filterwarnings("ignore", message="Glyph .* missing from font")
        yield


@plain_text()
def draw_confusion(matrix: np.ndarray, class_names: Sequence[str], file: Path) -> None:
    """Draw counts, coloured by the share of their row, so that rare classes can be read as well."""
    every = -(-len(class_names) // NAMED)
    places, names = range(0, len(class_names), every), [shortened(name, LABEL) for name in class_names[::every]]
    margin, side = 50 + widest(names), min(max(400, CELL * len(class_names)), 1400)
    figure = figure_of(margin + side + 130, margin + side + 40)
    axes = pixel_axes(figure, margin, 30, side, side)
    share = matrix / np.maximum(1, matrix.sum(1, keepdims=True))
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, cax=pixel_axes(figure, margin + side + 40, 30, 40, side))
    axes.set_xticks(places, names, rotation="vertical")
    axes.set_yticks(places, names)
    if len(class_names) <= NUMBERED:
        write_numbers(axes, matrix, share)
    right = f"{np.trace(matrix)} of {matrix.sum()} right"
    title = f"{file.parent.name}: {right}; colour is the share of the true class"
    axes.set(xlabel="Predicted label", ylabel="True label", title=title)
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
    headline = f"{file.parent.name}: {len(wrong)} mistakes" + (", the most confident first" if rows else "")
    names = [shortened(name, LETTERS) for name in class_names]
    captions = [
        f"{names[int(predicted[row])]} ({probabilities[row, predicted[row]]:.0%})\n"
        f"true: {names[int(predictions.targets[row])]}{found_by(predictions, row)}"
        for row in rows
    ]
    save(sheet(images, captions, headline), file)
    return True


def found_by(predictions: Predictions, row: int) -> str:
    """Return what a person finds a sample by: its file, else its index."""
    if predictions.files is None:
        return f", #{int(predictions.indices[row])}"
    return f"\n{shortened(Path(predictions.files[row]).name, LETTERS)}"


def sheet(images: Tensor, captions: Sequence[str], headline: str) -> Figure:
    """Return N × C × H × W images in 0…1, four in a row, under their captions: on one axes, for each costs time."""
    caption = 16 * max((words.count("\n") + 1 for words in captions), default=0) + 14
    width, height = COLUMNS * (SIDE + GAP) + GAP, 30 + max(1, -(-len(captions) // COLUMNS)) * (SIDE + caption)
    figure = figure_of(width, height)
    axes = pixel_axes(figure, 0, 0, width, height)
    axes.set_axis_off()
    axes.text(width / 2, 16, headline, ha="center", va="center", fontsize=12)
    for place, (image, words) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(place, COLUMNS)
        left, top = GAP + column * (SIDE + GAP), 30 + caption + row * (SIDE + caption)
        axes.text(left + SIDE / 2, top - 6, words, ha="center", va="bottom", fontsize=9)
        draw_image(axes, image, left, top)
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="auto")
    return figure


def draw_image(axes: Axes, image: Tensor, left: float, top: float) -> None:
    """Draw a C × H × W image in 0…1 as large as fits into a square of SIDE pixels, in the middle."""
    pixels = image.permute(1, 2, 0).numpy()
    height, width = (SIDE * n / max(pixels.shape[:2]) for n in pixels.shape[:2])
    left, top = left + (SIDE - width) / 2, top + (SIDE - height) / 2
    shown = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    axes.imshow(shown, cmap="gray", vmin=0, vmax=1, extent=(left, left + width, top + height, top))


def widest(names: Sequence[str]) -> int:
    """Return how many pixels the widest of these labels takes."""
    figure = figure_of(1, 1)
    return max(int(figure.text(0, 0, name).get_window_extent().width) for name in names)


def figure_of(width: float, height: float) -> Figure:
    """Return a figure of so many pixels, on which everything is placed by hand: a layout engine draws all twice."""
    figure = new_figure(width / DPI, height / DPI)
    figure.set_layout_engine("none")
    return figure


def pixel_axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Return axes placed by pixels, from the upper left."""
    across, down = (side * DPI for side in figure.get_size_inches())
    return figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))


def new_figure(width: float, height: float) -> Figure:
    """Return a figure of its own: pyplot's global state has no part in it."""
    return Figure(figsize=(width, height), layout="constrained", dpi=DPI)


def save(figure: Figure, file: Path | BytesIO) -> None:
    """Draw the figure and write it as PNG: `savefig` would draw it twice."""
    options = {"compress_level": 3}  # a third of the default's time, a fifth more bytes
    FigureCanvasAgg(figure).print_png(file, metadata={"Software": None}, pil_kwargs=options)  # type: ignore[no-untyped-call]
