"""BatchNorm's running statistics: an average that forgets, in which later micro-batches weigh more."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from microstep.examination.accumulation.gradient import Made
from microstep.examination.accumulation.shares import Shares
from microstep.training.profiling.gradients import relative_distance

STATISTICS = ("running_mean", "running_var")


def apart(cut: Made, uncut: Made, layers: Sequence[str]) -> float:
    """Return how far the running statistics of these layers are apart after a window, relatively."""
    names = [f"{layer}.{name}".removeprefix(".") for layer in layers for name in STATISTICS]
    return relative_distance((cut.buffers[name], uncut.buffers[name]) for name in names)


def shares(layer: nn.Module, sizes: Sequence[int]) -> Shares:
    """Return what each micro-batch of a window weighs in a layer's running mean, measured.

    A copy is shown ones as one micro-batch and zeros as the others: its running mean, which was zero, is the weight.
    Due is what its samples weigh in the one update that one big batch would make.
    """
    measured = tuple(weight(layer, len(sizes), number) for number in range(len(sizes)))
    once = weight(layer, 1, 0)
    return Shares(measured, tuple(once * size / sum(sizes) for size in sizes))


@torch.no_grad()
def weight(layer: nn.Module, micro_batches: int, number: int) -> float:
    """Return one micro-batch's weight."""
    own = copy.deepcopy(layer).train()
    own.reset_running_stats()  # type: ignore[operator]
    shape = (1, own.num_features, *(2,) * sides(own))
    for each in range(micro_batches):
        own(torch.full(shape, float(each == number), dtype=own.running_mean.dtype, device=own.running_mean.device))  # type: ignore[arg-type]
    return float(own.running_mean.mean())  # type: ignore[operator]


def sides(layer: nn.Module) -> int:
    """Return how many sides the pictures of a layer have."""
    return next((n for n in (1, 2, 3) if f"{n}d" in type(layer).__name__), 2)
