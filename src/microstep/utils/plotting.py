"""Figures as PNG, without pyplot's global state."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any
from warnings import catch_warnings, filterwarnings

import numpy as np
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

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
    (canvas := FigureCanvasAgg(figure)).draw()  # type: ignore[no-untyped-call]
    return encode_png(canvas)


class Template:
    """Figure that is drawn once, except the contents of `axes`, which are empty now, and some artists of theirs."""

    def __init__(self, axes: Sequence[Axes], *changing: Artist) -> None:
        self.axes, self.canvas = axes, FigureCanvasAgg(axes[0].get_figure(root=True))
        self.unchanged = {child for each in axes for child in each.get_children()}
        self.changing = [*changing, *(spine for each in axes for spine in each.spines.values())]
        for artist in self.changing:
            artist.set_animated(True)  # the background is drawn without it
        self.canvas.draw()  # type: ignore[no-untyped-call]
        self.background = self.canvas.copy_from_bbox(self.canvas.figure.bbox)  # type: ignore[no-untyped-call]

    def png_bytes(self) -> bytes:
        """Return the figure as PNG, and remove the contents of the axes."""
        contents = [child for each in self.axes for child in each.get_children() if child not in self.unchanged]
        self.canvas.restore_region(self.background)  # type: ignore[no-untyped-call]
        for artist in sorted([*contents, *self.changing], key=Artist.get_zorder):
            self.canvas.figure.draw_artist(artist)
        for artist in contents:
            artist.remove()
        for each in self.axes:
            each.containers.clear()
        return encode_png(self.canvas)


def encode_png(canvas: FigureCanvasAgg) -> bytes:
    """Return a drawn canvas as PNG. Opaque pixels take less time than those with transparency."""
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")  # type: ignore[no-untyped-call]
    image.save(png := BytesIO(), "PNG", dpi=(DPI, DPI), compress_level=3)  # a third of the default's time
    return png.getvalue()
