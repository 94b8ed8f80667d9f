"""Contact sheet of classified images: thumbnails with their predictions."""

from collections.abc import Sequence
from math import ceil, sqrt

import numpy as np
from matplotlib.axes import Axes

from microstep.components.task.classification.task import UNSURE_BELOW
from microstep.evaluation.predictions import ClassifiedImages
from microstep.utils.plotting import GREY, INK, RED, pixel_axes, pixel_figure, plain_text, png_bytes
from microstep.utils.text import format_count, truncate_middle

MAX_THUMBNAILS = 60
THUMBNAIL_PIXELS = 132  #: pixels of a thumbnail's longer side
THUMBNAIL_GAP = 12  #: pixels between thumbnails
CAPTION_PIXELS = 34  #: pixels below a thumbnail, for two lines
TITLE_PIXELS = 44  #: pixels above all thumbnails
CAPTION_LETTERS = 19  #: letters that fit under a thumbnail


def shown_indices(count: int) -> list[int]:
    return list(map(int, np.linspace(0, count - 1, min(count, MAX_THUMBNAILS))))


def fit_thumbnail(height: int, width: int) -> tuple[int, int]:
    scale = THUMBNAIL_PIXELS / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


@plain_text()
def draw_contact_sheet(
    classified: ClassifiedImages, indices: Sequence[int], thumbnails: np.ndarray, name: str
) -> bytes:
    """Return a PNG of the thumbnails (N × C × H × W, uint8) of some rows, above prediction and file name."""
    height, width = thumbnails.shape[2:]
    canvas, corners = tile_thumbnails(thumbnails)
    down, across = canvas.shape[:2]
    figure = pixel_figure(across, down)
    axes = pixel_axes(figure, 0, 0, across, down)
    axes.imshow(canvas, interpolation="nearest", extent=(0, across, down, 0), aspect="auto")
    axes.set_axis_off()
    title = format_sheet_title(classified, len(indices), name)
    axes.text(THUMBNAIL_GAP, TITLE_PIXELS / 2, title, va="center", color=INK, fontsize=10)
    for row, (top, left) in zip(indices, corners, strict=True):
        write_caption(axes, classified, row, left + width / 2, top + height)
    return png_bytes(figure)


def tile_thumbnails(thumbnails: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Return an H × W × 3 canvas of thumbnails in a grid, not resampled, and the top left corner of each."""
    count, height, width = len(thumbnails), *thumbnails.shape[2:]
    columns = min(count, ceil(sqrt(1.5 * count)))
    row_pixels, column_pixels = height + CAPTION_PIXELS + THUMBNAIL_GAP, width + THUMBNAIL_GAP
    cells = [divmod(index, columns) for index in range(count)]
    corners = [(TITLE_PIXELS + row * row_pixels, THUMBNAIL_GAP + column * column_pixels) for row, column in cells]
    size = (corners[-1][0] + row_pixels, max(4 * THUMBNAIL_PIXELS, THUMBNAIL_GAP + columns * column_pixels))
    canvas = np.full((*size, 3), 255, np.uint8)
    for (top, left), image in zip(corners, thumbnails, strict=True):
        canvas[top : top + height, left : left + width] = image.transpose(1, 2, 0)  # broadcasts one channel to three
    return canvas, corners


def write_caption(axes: Axes, classified: ClassifiedImages, row: int, middle: float, bottom: float) -> None:
    answer = classified.answers[classified.rows[row]]
    color = RED if answer.unsure else INK
    file = truncate_middle(classified.files[classified.rows[row]].rpartition("/")[2], CAPTION_LETTERS + 4)
    caption = truncate_middle(answer.caption, CAPTION_LETTERS)
    axes.text(middle, bottom + 11, caption, ha="center", va="center", color=color, fontsize=8)
    axes.text(middle, bottom + 25, file, ha="center", va="center", color=GREY, fontsize=6)


def format_sheet_title(classified: ClassifiedImages, num_shown: int, name: str) -> str:
    count = len(classified.rows)
    extent = f"{num_shown} of {count:,} shown" if num_shown < count else format_count(count, "image")
    unsure = sum(answer.unsure for answer in classified.answers.values())
    note = f"; confidence below {UNSURE_BELOW:.0%} in red ({unsure:,} of {count:,})" if unsure else ""
    return f"{truncate_middle(name, 30)}: {extent}{note}"
