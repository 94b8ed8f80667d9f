"""Pictures at a glance, each with what it was taken for."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, sqrt

import numpy as np
from matplotlib.axes import Axes

from microstep.evaluation.predictions import ClassifiedImages
from microstep.utils.plotting import GREY, INK, RED, pixel_axes, pixel_figure, plain_text, png_bytes
from microstep.utils.text import format_count, truncate_middle

MAX_THUMBNAILS = 60  #: pictures on one sheet
THUMBNAIL_PIXELS = 132  #: pixels of a thumbnail's longer side
THUMBNAIL_GAP = 12
CAPTION_PIXELS = 34  #: pixels below a thumbnail, for two lines
TITLE_PIXELS = 44  #: pixels above them all
CAPTION_LETTERS = 19  #: that fit under a thumbnail
UNSURE_BELOW = 0.5  #: confidence below which a caption is marked


def shown_indices(count: int) -> list[int]:
    """Return which of so many pictures are shown: all, or SHOWN of them, evenly spread."""
    return list(map(int, np.linspace(0, count - 1, min(count, MAX_THUMBNAILS))))


def fit_thumbnail(height: int, width: int) -> tuple[int, int]:
    """Return height and width of thumbnails in a picture's proportions."""
    scale = THUMBNAIL_PIXELS / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


@plain_text()
def draw_contact_sheet(
    classified: ClassifiedImages, indices: Sequence[int], thumbnails: np.ndarray, name: str
) -> bytes:
    """Return a PNG of thumbnails, each over its likeliest class and confidence (red below UNSURE) and its file's name.

    Args:
        indices: which of the readable pictures; at least one.
        thumbnails: theirs: N × C × H × W, uint8.
        name: the folder's, for the title.
    """
    height, width = thumbnails.shape[2:]
    canvas, corners = tiled(thumbnails)
    down, across = canvas.shape[:2]
    figure = pixel_figure(across, down)
    axes = pixel_axes(figure, 0, 0, across, down)
    axes.imshow(canvas, interpolation="nearest", extent=(0, across, down, 0), aspect="auto")
    axes.set_axis_off()
    axes.text(
        THUMBNAIL_GAP,
        TITLE_PIXELS / 2,
        format_sheet_title(classified, len(indices), name),
        va="center",
        color=INK,
        fontsize=10,
    )
    for row, (top, left) in zip(indices, corners, strict=True):
        write_caption(axes, classified, row, left + width / 2, top + height)
    return png_bytes(figure)


def tiled(thumbnails: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Return thumbnails side by side on an H × W × 3 canvas, none resampled, and the top and left of each."""
    count, height, width = len(thumbnails), *thumbnails.shape[2:]
    columns = min(count, ceil(sqrt(1.5 * count)))
    places = [divmod(place, columns) for place in range(count)]
    corners = [
        (TITLE_PIXELS + r * (height + CAPTION_PIXELS + THUMBNAIL_GAP), THUMBNAIL_GAP + c * (width + THUMBNAIL_GAP))
        for r, c in places
    ]
    size = (
        corners[-1][0] + height + CAPTION_PIXELS + THUMBNAIL_GAP,
        max(4 * THUMBNAIL_PIXELS, THUMBNAIL_GAP + columns * (width + THUMBNAIL_GAP)),
    )
    canvas = np.full((*size, 3), 255, np.uint8)
    for (top, left), image in zip(corners, thumbnails, strict=True):
        canvas[top : top + height, left : left + width] = image.transpose(1, 2, 0)  # one channel spreads over three
    return canvas, corners


def write_caption(axes: Axes, answers: ClassifiedImages, row: int, middle: float, bottom: float) -> None:
    """Write two lines under a thumbnail: its class with the confidence, and its file's name."""
    guess, confidence = answers.top(row)
    color = INK if confidence >= UNSURE_BELOW else RED
    file = truncate_middle(answers.files[int(answers.rows[row])].rpartition("/")[2], CAPTION_LETTERS + 4)
    words = f"{truncate_middle(guess, CAPTION_LETTERS - 5)} {confidence:.0%}"
    axes.text(middle, bottom + 11, words, ha="center", va="center", color=color, fontsize=8)
    axes.text(middle, bottom + 25, file, ha="center", va="center", color=GREY, fontsize=6)


def format_sheet_title(classified: ClassifiedImages, num_shown: int, name: str) -> str:
    """Return what the sheet shows, in one line."""
    count = len(classified.rows)
    part = f"{num_shown} of {count:,} shown" if num_shown < count else format_count(count, "picture")
    unsure = int((classified.confidence[:, 0] < UNSURE_BELOW).sum())
    note = f"; confidence below {UNSURE_BELOW:.0%} in red ({unsure:,} of {count:,})" if unsure else ""
    return f"{truncate_middle(name, 30)}: {part}{note}"
