"""The plot is drawn for any data set: gray images, many classes, names in any script."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from microstep.components.dataset import Images, image_folder
from microstep.dataset_report import plot as pages
from microstep.dataset_report.plot import draw_overview, iter_class_samples
from tests.dataset_report.folders import sick_folder

NAMES = ("$x_1$ and $", "狐狸", "a" * 60, "line\nbreak", "bad\udc80byte")


def drawn(names: tuple[str, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Return the plot of two images a class."""
    labels = np.arange(2 * len(names)) % len(names)
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), *shape), dtype=np.uint8)
    train = Images(pixels, labels, names)
    with Image.open(BytesIO(draw_overview("mine $", {"train": train, "test": train.select(np.arange(3))}))) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (3, 10, 4), (2, 5, 5), (1, 1, 1)])
def test_it_is_drawn_with_any_names_and_shapes(shape):
    """Dollars, Chinese, long and broken names neither crash it nor warn; nor do other numbers of channels."""
    assert drawn(NAMES, shape).shape[1] > 800


def test_gray_images_are_gray():
    """Samples of images with one channel have no color."""
    gray, color = (drawn(("a", "b"), (channels, 8, 8))[140:, -600:].astype(int) for channels in (1, 3))
    assert np.ptp(gray, axis=2).max() <= 1
    assert np.ptp(color, axis=2).max() > 100


def test_many_classes_are_cut():
    """Of 1000 classes only the first 30 are drawn."""
    tall = drawn(tuple(map(str, range(pages.MAX_PLOTTED_CLASSES))), (1, 2, 2)).shape[0]
    assert drawn(tuple(map(str, range(1000))), (1, 2, 2)).shape[0] == tall


def test_the_same_data_make_the_same_page():
    """Samples are not random, and the file contains no date."""
    train = Images(np.arange(12, dtype=np.uint8).reshape(3, 1, 2, 2), np.array([0, 1, 1]), ("a", "b"))
    assert draw_overview("x", {"train": train}) == draw_overview("x", {"train": train})


def test_samples_are_the_first_that_can_be_read(tmp_path: Path):
    """Unreadable files are skipped; there are never more samples than fit in a row."""
    sick_folder(tmp_path)
    (tmp_path / "train" / "dog" / "01.png").write_text("no picture either")
    train = image_folder(torch.device("cpu"), str(tmp_path), size=16).official_splits["train"]
    bad = [row for row in range(len(train)) if train.get_name(row).endswith(("cut.jpg", "text.png", "dog/01.png"))]
    for label in range(3):
        expected = [row for row in np.flatnonzero(train.labels == label).tolist() if row not in bad][
            : pages.SAMPLES_PER_CLASS
        ]
        np.testing.assert_array_equal(np.stack(list(iter_class_samples(train, label))), train.read(expected))
