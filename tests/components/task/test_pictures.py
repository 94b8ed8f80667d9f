"""Tests of the layout of a report's images."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from microstep.components.task.classification.plots import (
    GRID_GAP_PIXELS,
    GRID_IMAGE_PIXELS,
    bin_confidences,
    draw_confusion,
    draw_image_grid,
    draw_reliability,
    make_confusion_template,
)
from microstep.utils.plotting import DPI, pixel_figure, png_bytes


def pixels_of(file: Path) -> np.ndarray:
    """Return an image's pixels (H × W × 3)."""
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def inked(pixels: np.ndarray) -> np.ndarray:
    """Return first and last row, first and last column that are not white."""
    rows, columns = (pixels.min(2) < 250).nonzero()
    return np.array([rows.min(), rows.max(), columns.min(), columns.max()])


@pytest.mark.parametrize("count", [1, 4, 6, 16])
def test_mistakes_stand_four_in_a_row(tmp_path: Path, count: int) -> None:
    """Each image is drawn completely and in order, below its caption."""
    images = torch.arange(1, count + 1).view(-1, 1, 1, 1).expand(-1, 3, 8, 8) / 20
    (tmp_path / "sheet.png").write_bytes(png_bytes(draw_image_grid(images, ["a (99%)\ntrue: b"] * count, "headline")))
    pixels = pixels_of(tmp_path / "sheet.png")
    high = (len(pixels) - 30) // -(-count // 4)
    for place in range(count):
        bottom, left = 30 + (place // 4 + 1) * high, GRID_GAP_PIXELS + place % 4 * (GRID_IMAGE_PIXELS + GRID_GAP_PIXELS)
        inside = pixels[bottom - GRID_IMAGE_PIXELS + 4 : bottom - 4, left + 4 : left + GRID_IMAGE_PIXELS - 4]
        assert np.abs(inside - round(255 * (place + 1) / 20)).max() <= 1
        assert (
            pixels[bottom - high : bottom - GRID_IMAGE_PIXELS - 4, left : left + GRID_IMAGE_PIXELS].min() < 100
        )  # words


def test_a_picture_keeps_its_proportions(tmp_path: Path) -> None:
    """An image twice as wide as high takes half the height of its cell and is centered."""
    (tmp_path / "sheet.png").write_bytes(png_bytes(draw_image_grid(torch.zeros(1, 1, 16, 32), [""], "")))
    top, bottom, left, right = inked(pixels_of(tmp_path / "sheet.png"))
    assert (right - left, bottom - top) == (
        pytest.approx(GRID_IMAGE_PIXELS, abs=2),
        pytest.approx(GRID_IMAGE_PIXELS / 2, abs=2),
    )
    assert len(pixels_of(tmp_path / "sheet.png")) - bottom == pytest.approx(GRID_IMAGE_PIXELS / 4, abs=2)


@pytest.mark.parametrize("classes", [1, 3, 10, 70])
@pytest.mark.parametrize("name", ["x", "a class with a long name, WWWWWWWWWWWWWWWWWWWWWWWWWWWWWW"])
def test_the_matrix_has_room_for_its_names(tmp_path: Path, classes: int, name: str) -> None:
    """Names of any length are within the image, whose size is limited."""
    (tmp_path / "val").mkdir()
    file = tmp_path / "val" / "confusion_matrix.png"
    draw_confusion(np.diag(np.full(classes, 3)), [f"{n} {name}" for n in range(classes)], file)
    pixels = pixels_of(file)
    top, bottom, left, right = inked(pixels)
    assert min(top, left) >= 2
    assert bottom <= len(pixels) - 3
    assert right <= pixels.shape[1] - 3
    assert max(pixels.shape) < 2100


def test_cells_are_coloured_by_their_row(tmp_path: Path) -> None:
    """Cells are colored by their share of the true class, even of a rare one. Rows are true classes."""
    (tmp_path / "val").mkdir()
    matrix = np.array([[0, 100, 0], [0, 1, 0], [0, 0, 0]])
    draw_confusion(matrix, "abc", tmp_path / "val" / "confusion_matrix.png")
    pixels = pixels_of(tmp_path / "val" / "confusion_matrix.png")
    side = 400 / 3
    left = pixels.shape[1] - 130 - 400
    dark = [
        [pixels[int(30 + side * (r + 0.2)), int(left + side * (c + 0.2))].sum() < 200 for c in range(3)]
        for r in range(3)
    ]
    assert dark == [[False, True, False], [False, True, False], [False, False, False]]


def test_a_picture_shows_nothing_of_those_before_it(tmp_path: Path) -> None:
    """A matrix and a diagram are equal, byte for byte, whatever was drawn before them, and leave nothing in memory."""
    (tmp_path / "val").mkdir()
    bins = [
        bin_confidences(torch.linspace(low, 1, 20 * n), torch.arange(20 * n) % n == 0) for n, low in ((2, 0), (3, 0.5))
    ]
    draw = {
        "matrix": lambda n, file: draw_confusion(np.diag([n, 1, 0]), "abc", file),
        "diagram": lambda n, file: draw_reliability(bins[n - 1], file),
    }
    for name, function in draw.items():
        files = [tmp_path / "val" / f"{name}{k}.png" for k in range(3)]
        for n, file in zip((1, 2, 1), files, strict=True):
            function(n, file)
        first, other, again = (file.read_bytes() for file in files)
        assert first == again != other
    axes = make_confusion_template(("a", "b", "c")).axes[0]
    assert not [*axes.images, *axes.texts, *axes.containers]


def test_a_png_holds_the_pixels_that_were_drawn() -> None:
    """Pillow decodes each pixel as it was drawn, and the resolution."""
    figure = pixel_figure(61, 37)
    figure.text(0, 0.2, "text", color="red")
    with Image.open(BytesIO(png_bytes(figure))) as image:
        pixels, dpi = np.asarray(image), image.info["dpi"]
    assert np.array_equal(pixels, np.asarray(figure.canvas.buffer_rgba())[..., :3])  # type: ignore[attr-defined]
    assert dpi == pytest.approx((DPI, DPI), abs=0.1)
