"""Figures have the size that was asked for, images their proportions, and names stay as they are."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from microstep.utils.plotting import draw_image, pixel_axes, pixel_figure, plain_text, png_bytes


def pixels_of(figure: Figure) -> np.ndarray:
    """Return the pixels of a drawn figure, H × W × 3."""
    with Image.open(BytesIO(png_bytes(figure))) as image:
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize("shape", [(1, 8, 4), (3, 4, 8), (2, 6, 6)])
def test_an_image_fills_its_square_in_its_proportions(shape: tuple[int, int, int]) -> None:
    """Its longer side is the square's, its center the square's center, whatever the number of channels."""
    figure = pixel_figure(200, 100)
    axes = pixel_axes(figure, 0, 0, 200, 100)
    draw_image(axes, np.zeros(shape), 150, 40, 60)
    axes.set(xlim=(0, 200), ylim=(100, 0), aspect="auto")
    axes.set_axis_off()
    drawn = pixels_of(figure)
    rows, columns = (drawn.max(2) < 50).nonzero()
    height, width = (60 * side / max(shape[1:]) for side in shape[1:])
    assert drawn.shape == (100, 200, 3)
    assert (rows.min(), rows.max() + 1) == (40 - height / 2, 40 + height / 2)
    assert (columns.min(), columns.max() + 1) == (150 - width / 2, 150 + width / 2)


def test_three_channels_are_colors(caplog: pytest.LogCaptureFixture) -> None:
    """Values beyond 0…1 are clipped, which matplotlib would log."""
    figure = pixel_figure(10, 10)
    axes = pixel_axes(figure, 0, 0, 10, 10)
    draw_image(axes, np.array([1.5, 0.5, -1]).reshape(3, 1, 1), 0, 0, 1)
    assert pixels_of(figure)[5, 5].tolist() == [255, 127, 0]
    assert not caplog.records


def test_names_are_drawn_as_they_are() -> None:
    """Dollars start no formula, a broken one included, and an unknown glyph is no warning; settings end with it."""
    figure = pixel_figure(100, 50)
    with plain_text({"font.size": 7}):
        text = figure.text(0, 0, "$x_{ \U000f0000$")
        drawn = pixels_of(figure)
    assert text.get_fontsize() == 7
    assert drawn.min() < 100
    figure = pixel_figure(100, 50)
    figure.text(0, 0, "$x_{$")
    with pytest.raises(ValueError, match="x_"):
        png_bytes(figure)
