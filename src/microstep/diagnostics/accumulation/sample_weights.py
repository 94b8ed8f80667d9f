"""Measures the weight of each sample in a gradient, and distances between gradients."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from microstep.diagnostics.accumulation.gradient import WindowGradient
from microstep.training.profiling.gradients import relative_distance

LAYER_FLOOR = 1e-3  #: of the whole gradient: what a smaller layer is held against


def compute_layer_differences(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> dict[str, float]:
    """Return ‖one − other‖ / ‖other‖ for the parameters of each layer, in the model's order.

    A layer whose gradient is less than a thousandth of the whole is held against that: a bias before a BatchNorm has a
    gradient of zero, and rounding is no difference.
    """
    floor = LAYER_FLOOR * float(get_total_norm(other.values()))
    return {
        layer: relative_distance([(one[name], other[name]) for name in names], floor)
        for layer, names in group_by_layer(other).items()
    }


def compute_total_difference(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Return ‖one − other‖ / ‖other‖ over all parameters."""
    return relative_distance((one[name], other[name]) for name in other)


def group_by_layer(tensors: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Return the names of each layer's parameters."""
    found: dict[str, list[str]] = {}
    for name in tensors:
        found.setdefault(name.rpartition(".")[0] or "(model)", []).append(name)
    return found


WEIGHT_TOLERANCE = 1e-9  #: relative error of a weight that counts as wrong


@dataclass(frozen=True)
class SampleWeights:
    """The weight of each part, measured, and what is due to it: its weight in one big batch, measured too."""

    measured: tuple[float, ...]
    due: tuple[float, ...]

    def by(self, sizes: Sequence[int]) -> SampleWeights:
        """Return the sums over consecutive parts."""
        ends = list(accumulate(sizes))
        spans = [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]
        return SampleWeights(
            tuple(sum(self.measured[span]) for span in spans),
            tuple(sum(self.due[span]) for span in spans),
        )

    @property
    def last_to_first(self) -> float:
        """How many times as much as the first part the last one weighs, each held against what is due to it."""
        first, last = (self.measured[n] / self.due[n] for n in (0, -1))
        return last / first if first else math.inf

    @property
    def wrong(self) -> list[bool]:
        """Say of each part whether it weighs anything else than what is due."""
        pairs = zip(self.measured, self.due, strict=True)
        return [abs(weight - due) > WEIGHT_TOLERANCE * abs(due) for weight, due in pairs]


RUNNING_BUFFERS = ("running_mean", "running_var")


def compute_statistics_difference(cut: WindowGradient, uncut: WindowGradient, layers: Sequence[str]) -> float:
    """Return how far the running statistics of these layers are apart after a window, relatively."""
    names = [f"{layer}.{name}".removeprefix(".") for layer in layers for name in RUNNING_BUFFERS]
    return relative_distance((cut.buffers[name], uncut.buffers[name]) for name in names)


def measure_running_weights(layer: nn.Module, sizes: Sequence[int]) -> SampleWeights:
    """Return what each micro-batch of a window weighs in a layer's running mean, measured.

    A copy is shown ones as one micro-batch and zeros as the others: its running mean, which was zero, is the weight.
    Due is what its samples weigh in the one update that one big batch would make.
    """
    measured = tuple(measure_running_weight(layer, len(sizes), number) for number in range(len(sizes)))
    once = measure_running_weight(layer, 1, 0)
    return SampleWeights(measured, tuple(once * size / sum(sizes) for size in sizes))


@torch.no_grad()
def measure_running_weight(layer: nn.Module, micro_batches: int, number: int) -> float:
    """Return one micro-batch's weight."""
    own = copy.deepcopy(layer).train()
    own.reset_running_stats()  # type: ignore[operator]
    shape = (1, own.num_features, *(2,) * count_spatial_dims(own))
    for each in range(micro_batches):
        own(torch.full(shape, float(each == number), dtype=own.running_mean.dtype, device=own.running_mean.device))  # type: ignore[arg-type]
    return float(own.running_mean.mean())  # type: ignore[operator]


def count_spatial_dims(layer: nn.Module) -> int:
    """Return how many sides the pictures of a layer have."""
    return next((n for n in (1, 2, 3) if f"{n}d" in type(layer).__name__), 2)
