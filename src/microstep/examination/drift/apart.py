"""How far two trainings are apart."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from microstep.examination.drift.training import Seen, Training
from microstep.training.profiling.gradients import relative_distance


@dataclass(frozen=True)
class Apart:
    """Two trainings after an epoch. Zero everywhere: no bit differs.

    `weights` is ‖Δa − Δb‖ / ‖Δb‖, where Δ is what training has moved: relative to the weights themselves, a model that
    starts well (a pretrained one) or has run for an epoch would look close to anything, and two seeds would be as far
    apart as their initial weights, whatever was learnt. Two trainings that have nothing to do with each other are
    √2, or 141 %, apart: directions by chance are orthogonal in so many dimensions.

    Weights aren't what a model is for, though: two can compute nearly the same with very different ones. `outputs`,
    ‖f(a) − f(b)‖ / ‖f(b)‖ over the validation split, is meant for any task.
    """

    weights: float
    outputs: float
    predictions: int | None  #: that differ; None where the task doesn't say what it takes a sample for
    metrics: dict[str, float]  #: each one's difference, without sign


def apart(one: Training, other: Training, seen: Seen, reference: Seen) -> Apart:
    """Return how far one training is from the other, whose extent is the unit."""
    weights = relative_distance(zip(one.moves(), other.moves(), strict=True))
    outputs = relative_distance([(seen.outputs, reference.outputs)])
    metrics = {name: abs(value - reference.metrics[name]) for name, value in seen.metrics.items()}
    return Apart(weights, outputs, differing(seen.decided, reference.decided), metrics)


def differing(one: Tensor | None, other: Tensor | None) -> int | None:
    """Return how many samples are taken for something else."""
    if one is None or other is None:
        return None
    return int((one != other).flatten(1).any(1).sum()) if one.dim() > 1 else int((one != other).sum())
