"""Whether a model is right as often as its confidence says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from scipy.stats import binomtest
from torch import Tensor

from microstep.utils.plotting import BLUE, GREY, LIGHT_BLUE, pixel_axes, pixel_figure, plain_text, png_bytes

BINS = 15  #: of equal width, as Guo et al. have them
HEADER = ("above", "up_to", "count", "confidence", "accuracy", "accuracy_low", "accuracy_high")


@dataclass(frozen=True, slots=True)
class Bin:
    """The samples whose confidence lies between two bounds."""

    above: float
    up_to: float
    count: int
    confidence: float  #: their mean
    right: int

    @property
    def accuracy(self) -> float:
        """The share that is right."""
        return self.right / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the accuracy: of few samples it is wide."""
        low, high = binomtest(self.right, self.count).proportion_ci(method="wilson")
        return float(low), float(high)


def calibration(confidence: Tensor, right: Tensor) -> list[Bin]:
    """Return the bins of confidences in 0…1 that have samples; a bin has its upper bound, and 0 is in the first."""
    places = np.clip(np.ceil(np.nan_to_num(confidence.numpy()) * BINS).astype(int) - 1, 0, BINS - 1)
    counts, sums, hits = (np.bincount(places, w, BINS) for w in (None, confidence.numpy(), right.double().numpy()))
    return [
        Bin(n / BINS, (n + 1) / BINS, int(counts[n]), float(sums[n] / counts[n]), int(hits[n]))
        for n in np.flatnonzero(counts)
    ]


def calibration_error(bins: list[Bin]) -> float:
    """Return the expected calibration error (Guo et al., ICML 2017): by how much confidence and accuracy differ."""
    return sum(b.count * abs(b.accuracy - b.confidence) for b in bins) / sum(b.count for b in bins)


def calibration_rows(bins: list[Bin]) -> Iterator[list[str]]:
    """Yield a row a bin, as HEADER has it."""
    for b in bins:
        shares = [f"{share:.6f}" for share in (b.confidence, b.accuracy, *b.interval)]
        yield [f"{b.above:.6f}", f"{b.up_to:.6f}", str(b.count), *shares]


@plain_text()
def draw_reliability(bins: list[Bin], file: Path) -> None:
    """Draw each bin's accuracy with its interval over its mean confidence, and how many samples it has."""
    figure = pixel_figure(660, 660)
    upper, lower = pixel_axes(figure, 72, 34, 570, 420), pixel_axes(figure, 72, 484, 570, 124)
    draw_accuracies(upper, bins)
    lower.bar([b.above for b in bins], [b.count for b in bins], 1 / BINS, align="edge", color=BLUE, edgecolor="w")
    lower.set(xlim=(0, 1), xlabel="confidence", ylabel="samples")
    upper.set_title(f"{file.parent.name}: expected calibration error {calibration_error(bins):.4f}", fontsize=11)
    file.write_bytes(png_bytes(figure))


def draw_accuracies(axes: Axes, bins: list[Bin]) -> None:
    """Draw what is to be read against the diagonal: below it the model is too sure of itself."""
    for b in bins:
        axes.add_patch(Rectangle((b.above, 0), 1 / BINS, b.accuracy, facecolor=LIGHT_BLUE, edgecolor="w"))
    confidence, accuracy = [b.confidence for b in bins], [b.accuracy for b in bins]
    below, beyond = zip(*[(b.accuracy - b.interval[0], b.interval[1] - b.accuracy) for b in bins], strict=True)
    axes.plot((0, 1), (0, 1), color=GREY, linewidth=1, linestyle="--")
    axes.errorbar(confidence, accuracy, np.maximum(0, (below, beyond)), fmt="o", color=BLUE, markersize=4)
    axes.set(xlim=(0, 1), ylim=(-0.02, 1.02), ylabel="accuracy, with its 95 % interval")
