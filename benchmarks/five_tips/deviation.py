"""Tip 5, mean and standard deviation of Fashion-MNIST: of one batch, averaged over batches, borrowed, and exact."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from microstep.components.dataset.mnist import read_idx_split
from microstep.components.dataset.statistics import ChannelStatistics, iter_chunks
from microstep.config.compose import compose

from .drawing import EXACT, MENDED, OURS, USUAL, picture

BATCH, SIZES = 64, (1, 4, 16, 64, 256)
MNIST = (0.1307, 0.3081)  #: mean and standard deviation copied from example to example


def pictures(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the bytes and labels of a split from the root in the config."""
    root = Path(compose(["dataset=fashion_mnist"]).dataset.root)
    return read_idx_split(root, split, "give its directory as dataset.root=DIR")


def exact(*splits: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation over every pixel."""
    found = ChannelStatistics.from_stream((part for pixels in splits for part in iter_chunks(pixels)), 255.0)
    return found.mean[0], found.std[0]


def by_batch(pixels: np.ndarray, order: Sequence[int], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the means and standard deviations of consecutive batches."""
    parts = [pixels[order[start : start + size]] / 255.0 for start in range(0, len(order), size)]
    return np.array([part.mean() for part in parts]), np.array([part.std() for part in parts])


def in_float32(pixels: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation from running sums of float32, one batch at a time."""
    total = squares = np.float32(0)
    for start in range(0, len(pixels), BATCH):
        part = (pixels[start : start + BATCH] / 255.0).astype(np.float32)
        total, squares = total + part.sum(), squares + np.square(part).sum()
    mean = total / np.float32(pixels.size)
    return float(mean), float(np.sqrt(squares / np.float32(pixels.size) - mean * mean))


def draw(means: np.ndarray, right_one: tuple[float, float], averages: dict[str, dict[int, float]]) -> None:
    with picture("statistics", widths=(1, 1.1)) as (left, right):
        left.hist(means, 40, color=USUAL, label=f"mean of one batch of {BATCH}")
        left.axvline(right_one[0], color=OURS, lw=2, label=f"exact: {right_one[0]:.4f}")
        left.axvline(MNIST[0], color=EXACT, lw=2, ls=":", label=f"MNIST's {MNIST[0]}, copied")
        left.set(title="Mean of Fashion-MNIST", yticks=[], ylim=(0, 120))
        left.legend(loc="upper left", bbox_to_anchor=(0.06, 1))
        for (name, values), colour in zip(averages.items(), (MENDED, USUAL), strict=True):
            right.plot(list(values), list(values.values()), "o-", color=colour, label=name)
        right.axhline(right_one[1], color=OURS, lw=2, label=f"exact: {right_one[1]:.4f}")
        right.set(title="Average of the batches' deviations", xlabel="pictures in a batch (log scale)", xscale="log")
        right.set_xticks(SIZES, [str(size) for size in SIZES], minor=False)
        right.minorticks_off()
        right.legend(loc="lower right")


def main() -> None:
    print("5 mean and deviation")
    (pixels, labels), (test, _) = pictures("train"), pictures("t10k")
    right = exact(pixels)
    both, rough = exact(pixels, test), in_float32(pixels)
    print(f"  exact {right[0]:.6f} {right[1]:.6f}; with the test split {both[0]:.6f} {both[1]:.6f}")
    print(f"  summed in float32: {rough[0] - right[0]:+.1e} {rough[1] - right[1]:+.1e}")
    shuffled = np.random.default_rng(0).permutation(len(pixels))
    means, stds = by_batch(pixels, shuffled, BATCH)
    means, stds = means[:-1], stds[:-1]  # full batches
    for name, values in (("means", means), ("deviations", stds)):
        print(f"  {len(values)} batches' {name}: ± {values.std():.4f}, from {values.min():.4f} to {values.max():.4f}")
    orders = {"shuffled": shuffled, "sorted by class": np.argsort(labels, kind="stable")}
    averages = {name: {n: by_batch(pixels, order, n)[1].mean() for n in SIZES} for name, order in orders.items()}
    for name, found in averages.items():
        for size, average in found.items():
            print(f"  {name}, batches of {size:3}: {average:.4f}, {average / right[1] - 1:+.2%}")
    print(f"  MNIST's: pictures have mean {(right[0] - MNIST[0]) / MNIST[1]:.3f}, deviation {right[1] / MNIST[1]:.3f}")
    draw(means, right, averages)
