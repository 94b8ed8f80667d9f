"""Draws the class balance of a data set and samples of each class."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from unicodedata import east_asian_width

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from microstep.components.dataset.images import ImageSource
from microstep.dataset_report.sampling import count_labels, list_memberships
from microstep.errors import DataError, escape_unprintable
from microstep.utils.plotting import GREY, GRID, INK, RED, SERIES, draw_image, new_figure, plain_text, png_bytes
from microstep.utils.text import truncate_middle

MAX_PLOTTED_CLASSES = 30
SAMPLES_PER_CLASS = 8
ROW_INCHES, BARS_INCHES, LETTER_INCHES = 0.66, 3.6, 0.095
EDGE_INCHES, HEAD_INCHES, FOOT_INCHES = 0.3, 0.95, 0.35
PLOTTED_NAME_LETTERS = 28
SAMPLE_GAP = 0.06  #: between samples, relative to the height of a row


@plain_text()
def draw_overview(title: str, official_splits: Mapping[str, ImageSource]) -> bytes:
    """Return a PNG of the first classes: bars of their image counts by split, and their first training images."""
    first = next(iter(official_splits.values()))
    names = [truncate_middle(name, PLOTTED_NAME_LETTERS) for name in first.class_names]
    shown = min(len(names), MAX_PLOTTED_CLASSES)
    left = EDGE_INCHES + 0.1 + LETTER_INCHES * max(map(display_width, names[:shown]))
    samples_left, samples_width = left + BARS_INCHES + EDGE_INCHES, SAMPLES_PER_CLASS * ROW_INCHES
    width, height = samples_left + samples_width + EDGE_INCHES, HEAD_INCHES + shown * ROW_INCHES + FOOT_INCHES
    figure = new_figure(width, height)
    figure.set_layout_engine("none")  # positions are in inches
    bottom, tall = FOOT_INCHES / height, shown * ROW_INCHES / height
    bars = figure.add_axes((left / width, bottom, BARS_INCHES / width, tall))
    samples = figure.add_axes((samples_left / width, bottom, samples_width / width, tall))
    draw_class_balance(bars, names[:shown], official_splits)
    draw_samples(samples, official_splits.get("train", first), shown)
    write_title(figure, title, official_splits, len(names) - shown)
    return png_bytes(figure)


def write_title(figure: Figure, title: str, official_splits: Mapping[str, ImageSource], hidden: int) -> None:
    width, height = figure.get_size_inches()
    left, first = EDGE_INCHES / width, next(iter(official_splits.values()))
    shape = " × ".join(map(str, first.shape))
    subtitle = f"{len(first.class_names):,} classes, images of {shape} (channels × height × width)"
    figure.text(left, 1 - 0.2 / height, escape_unprintable(title), size=16, weight="bold", color=INK, va="top")
    figure.text(left, 1 - 0.55 / height, subtitle, size=9.5, color=GREY, va="top")
    for index, (name, source) in enumerate(official_splits.items()):
        color = SERIES[index % len(SERIES)]
        right = 1 - (EDGE_INCHES + 1.5 * (len(official_splits) - 1 - index)) / width
        label = f"■ {name} {len(source):,}"
        figure.text(right, 1 - 0.3 / height, label, size=10.5, color=color, ha="right", va="top", weight="bold")
    if hidden:
        figure.text(left, 0.12 / height, f"… and {hidden:,} more classes", size=9.5, color=GREY)


def draw_class_balance(axes: Axes, names: list[str], official_splits: Mapping[str, ImageSource]) -> None:
    sources = official_splits.values()
    counts = np.stack([count_labels(one.labels, len(one), len(one.class_names))[: len(names)] for one in sources])
    thick = 0.72 / len(counts)
    for index, values in enumerate(counts):
        middles = np.arange(len(names)) + (index - (len(counts) - 1) / 2) * thick
        axes.barh(middles, values, thick * 0.9, color=SERIES[index % len(SERIES)])
        for middle, value in zip(middles, values, strict=True):
            color = INK if value else RED
            axes.text(value, middle, f" {value:,}", va="center", size=min(8.5, 26 * thick), color=color)
    axes.set_xlim(0, 1.16 * counts.max())
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), names, size=10, color=INK)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_color(GRID)


def display_width(name: str) -> int:
    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in name)


def draw_samples(axes: Axes, source: ImageSource, classes: int) -> None:
    for label in range(classes):
        for index, pixels in enumerate(iter_class_samples(source, label)):
            draw_image(axes, pixels / source.scale, index, label, 1 - SAMPLE_GAP)
    axes.set_xlim(-0.5, SAMPLES_PER_CLASS - 0.5)
    axes.set_ylim(classes - 0.5, -0.5)
    axes.set_aspect("auto")
    axes.set_axis_off()


def iter_class_samples(source: ImageSource, label: int) -> Iterator[np.ndarray]:
    def iter_readable() -> Iterator[np.ndarray]:
        rows, classes = list_memberships(source.labels)
        for row in rows[classes == label].tolist():
            with suppress(DataError):
                yield source.read([row])[0]

    return islice(iter_readable(), SAMPLES_PER_CLASS)
