"""Ranges of the numeric config keys."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """The interval a number must lie in: closed, except where `above` or `below` opens it."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def __contains__(self, value: float) -> bool:
        return self.least <= value <= self.most and self.above < value < self.below

    def __str__(self) -> str:
        bounds = [("at least", self.least), ("above", self.above), ("at most", self.most), ("below", self.below)]
        return " and ".join(f"{word} {bound:g}" for word, bound in bounds if math.isfinite(bound))


POSITIVE_INT = Range(least=1)
POSITIVE = Range(above=0)
NON_NEGATIVE = Range(least=0)
MAX_COUNT = 1024  #: threads or processes at most: far more of them than a machine can start bring it down
#: Ranges of the numbers that the shipped yamls hold, by dotted key.
RANGES = {
    "accumulation.micro_batches": POSITIVE_INT,
    "augment.padding": Range(least=0, most=1),
    "augment.flip": Range(least=0, most=1),
    "augment.hole": Range(above=0, most=1),
    "augment.alpha": POSITIVE,
    "augment.num_ops": POSITIVE_INT,
    "augment.magnitude": Range(least=0, most=30),
    "checkpoint.every_epochs": POSITIVE_INT,
    "checkpoint.every_minutes": POSITIVE,
    "checkpoint.every_steps": POSITIVE_INT,
    "dataset.val_samples": POSITIVE_INT,
    "dataset.test_samples": POSITIVE_INT,
    "dataset.split_seed": Range(least=0, most=2**32 - 1),
    "dataset.samples": POSITIVE_INT,
    "dataset.classes": Range(least=2),
    "dataset.channels": POSITIVE_INT,
    "dataset.size": POSITIVE_INT,
    "dataset.val_fraction": Range(above=0, below=1),
    "dataset.test_fraction": Range(above=0, below=1),
    "dataset.budget_gib": NON_NEGATIVE,
    "dataset.max_pixels": POSITIVE_INT,
    "model.dropout": Range(least=0, below=1),
    "model.width": POSITIVE_INT,
    "optimizer.lr": POSITIVE,
    "optimizer.weight_decay": NON_NEGATIVE,
    "optimizer.momentum": NON_NEGATIVE,
    "optimizer.eps": NON_NEGATIVE,
    "precision.init_scale": POSITIVE,
    "precision.max_skipped": POSITIVE_INT,
    "sampler.power": Range(least=0, most=1),
    "scheduler.warmup": Range(least=0, below=1),
    "scheduler.final": Range(least=0, most=1),
    "scheduler.pct_start": Range(above=0, below=1),
    "step.rho": POSITIVE,
    "task.label_smoothing": Range(least=0, below=1),
}
