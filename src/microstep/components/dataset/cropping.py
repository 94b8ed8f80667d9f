"""Measures how much of its images a crop cuts off, by the sizes that files declare."""

from contextlib import suppress

import numpy as np

from microstep.components.dataset.files import ImageFiles
from microstep.components.dataset.images import ImageSource
from microstep.errors import DataError

MAX_SAMPLES = 512  #: most files whose sizes are read for a summary
LARGE_CUT = 0.1  #: share of the area cut off that is worth a line


def read_published_size(source: ImageSource, row: int) -> tuple[int, int]:
    """Return width and height of an image; 0 × 0 if its file can't be read."""
    with suppress(DataError):
        return source.read_size(row)
    return 0, 0


def is_cropped(source: ImageSource) -> bool:
    return isinstance(source, ImageFiles) and source.decoder.fit == "crop"


def compute_cut_shares(source: ImageSource, sizes: np.ndarray) -> np.ndarray:
    """Return the share of each image's area that is cut off: N, for N × 2 widths and heights."""
    if not is_cropped(source):
        return np.zeros(len(sizes))
    scaled = np.maximum(sizes, 1) * source.shape[1:]  # width × height, height × width
    shares: np.ndarray = 1 - scaled.min(1) / scaled.max(1)
    return shares


def describe_crop(source: ImageSource) -> str:
    """Return how much is cut off the images, measured on a sample if they are many; empty if it is little."""
    if not is_cropped(source):  # no file has to be opened
        return ""
    rows = np.unique(np.linspace(0, len(source) - 1, MAX_SAMPLES).astype(int)).tolist()
    cut = compute_cut_shares(source, np.array([read_published_size(source, row) for row in rows]))
    if cut.mean() < LARGE_CUT:
        return ""
    images = f"{'' if len(rows) == len(source) else 'a sample of '}{len(rows):,}"
    counts = f"{np.count_nonzero(cut > 0.5)} of {images} lose more than half"
    return f"; dataset.fit=crop shows {100 * (1 - cut.mean()):.0f} % of the images' area on average, {counts}"
