"""Figures as PNG, without pyplot's global state."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from typing import Any
from warnings import catch_warnings, filterwarnings

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

DPI = 110
INK, GREY, GRID = "#222222", "#777777", "#dedfdc"  #: text; text and lines in the background
SERIES = BLUE, ORANGE, GREEN, PURPLE = "#2f6ba8", "#cf6f1e", "#3f8a55", "#8e5aa8"
RED, LIGHT_BLUE = "#c0392b", "#b3cbe3"


@contextmanager
def plain_text(style: Mapping[Any, Any] | None = None) -> Iterator[None]:
    """Draw text literally: a $ starts no formula, and a missing glyph causes no warning. `style` adds rcParams."""
    with rc_context({"text.parse_math": False, **(style or {})}), catch_warnings():
        filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def new_figure(width: float, height: float) -> Figure:
    """Return a figure with a constrained layout. Sizes are in inches."""
    return Figure(figsize=(width, height), layout="constrained", dpi=DPI)


def pixel_figure(width: float, height: float) -> Figure:
    """Return a figure without a layout engine, which would draw everything twice. Sizes are in pixels."""
    figure = new_figure(width / DPI, height / DPI)
    figure.set_layout_engine("none")
    return figure


def pixel_axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Return axes at a position in pixels from the upper left corner."""
    across, down = (side * DPI for side in figure.get_size_inches())
    return figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))


def draw_image(axes: Axes, image: np.ndarray, x: float, y: float, side: float) -> None:
    """Draw an image into the square around (x, y), as large as possible. The y axis must point down.

    The image is C × H × W in 0…1, and gray unless it has three channels.
    """
    half_height, half_width = (side / 2 * n / max(image.shape[1:]) for n in image.shape[1:])
    extent = (x - half_width, x + half_width, y + half_height, y - half_height)
    pixels = image.transpose(1, 2, 0) if len(image) == 3 else image[0]
    axes.imshow(pixels.clip(0, 1), cmap="gray", vmin=0, vmax=1, extent=extent)


def png_bytes(figure: Figure) -> bytes:
    """Return a figure as PNG. Unlike `savefig`, this draws it only once."""
    options = {"compress_level": 3}  # a third of the default's time for a fifth more bytes
    FigureCanvasAgg(figure).print_png(png := BytesIO(), metadata={"Software": None}, pil_kwargs=options)  # type: ignore[no-untyped-call]
    return png.getvalue()
