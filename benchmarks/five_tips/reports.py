"""Tip 4, the classification report: cases in which the snippet raises, and the error of averages over batches."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
from sklearn.metrics import accuracy_score, classification_report, f1_score

from microstep.config.compose import compose
from microstep.training.build import build_trainer

from .drawing import EXACT, MENDED, OURS, USUAL, picture

SIZES, SUBSETS, ORDERS, BATCHES = (8, 16, 24, 32, 48, 64), 1000, 1000, (16, 64)
NAMES = [str(n) for n in range(10)]


def answers(epochs: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and predictions of the 180 test digits, of a short run."""
    with tempfile.TemporaryDirectory() as home, redirect_stdout(io.StringIO()):
        build_trainer(compose([f"epochs={epochs}", "threads=1", "progress=false"]), home).fit()
        with (Path(home) / "reports/test/predictions.csv").open() as file:
            rows = [(int(row["label"]), int(row["prediction"])) for row in csv.DictReader(file)]
    labels, predictions = np.array(rows).T
    return labels, predictions


def raises(labels: np.ndarray, predictions: np.ndarray) -> bool:
    """Return whether the usual snippet fails."""
    try:
        classification_report(labels, predictions, target_names=NAMES, zero_division=0)
    except ValueError:
        return True
    return False


def failures(labels: np.ndarray, predictions: np.ndarray, size: int) -> float:
    """Return the share of random subsets of a size for which the snippet raises."""
    generator = np.random.default_rng(size)
    subsets = (generator.choice(len(labels), size, replace=False) for _ in range(SUBSETS))
    return float(np.mean([raises(labels[rows], predictions[rows]) for rows in subsets]))


def macro_f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    return f1_score(labels, predictions, average="macro", zero_division=0)


def averaged(score: Callable, labels: np.ndarray, predictions: np.ndarray, batch: int) -> np.ndarray:
    """Return the mean of the scores of batches, for many orders of the same samples."""
    generator, found = np.random.default_rng(0), []
    for _ in range(ORDERS):
        order = generator.permutation(len(labels))
        parts = [order[start : start + batch] for start in range(0, len(order), batch)]
        found.append(np.mean([score(labels[rows], predictions[rows]) for rows in parts]))
    return np.array(found)


def draw(shares: dict[int, float], exact: float, f1: dict[int, np.ndarray]) -> None:
    with picture("report") as (left, right):
        left.plot(list(shares), [100 * share for share in shares.values()], "o-", color=USUAL)
        left.axhline(0, color=OURS, lw=3)
        left.text(8, 4, "with labels=range(10)", color=OURS)
        left.set(title="target_names=… raises ValueError, %", xlabel="samples in the report", ylim=(-3, 103))
        for (batch, values), colour in zip(f1.items(), (USUAL, MENDED), strict=True):
            right.hist(100 * values, np.arange(89, 98, 0.2), color=colour, label=f"mean over batches of {batch}")
        right.axvline(100 * exact, color=EXACT, lw=1.5, label="over all samples at once")
        right.set(title="Macro F1 of the same answers, %", yticks=[])
        right.legend(loc="upper left")


def main() -> None:
    print("4 classification report")
    labels, predictions = answers()
    shares = {size: failures(labels, predictions, size) for size in SIZES}
    for size, share in shares.items():
        print(f"  {size:3} samples: raises for {share:.1%} of {SUBSETS} random subsets")
    f1 = {}
    for name, score in (("accuracy", accuracy_score), ("macro F1", macro_f1)):
        print(f"  {name}: {score(labels, predictions):.4f} over all {len(labels)} samples")
        for batch in BATCHES:
            found = averaged(score, labels, predictions, batch)
            f1[batch] = found
            print(f"    mean over batches of {batch}: {found.mean():.4f}, from {found.min():.4f} to {found.max():.4f}")
    draw(shares, macro_f1(labels, predictions), f1)
