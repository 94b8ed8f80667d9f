"""Measures the weight of each sample in a gradient, and distances between gradients."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from microstep.training.profiling.gradients import relative_distance

LAYER_FLOOR = 1e-3  #: share of the whole gradient's norm that a layer is at least compared with
WEIGHT_TOLERANCE = 1e-9  #: relative error of a weight that counts as wrong


def compute_layer_differences(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> dict[str, float]:
    """Return ‖one − other‖ / ‖other‖ for the parameters of each layer, in the model's order.

    A layer whose gradient is less than a thousandth of the whole is compared with that thousandth. For example, a bias
    before a BatchNorm has a gradient of zero, up to rounding.
    """
    floor, layers = LAYER_FLOOR * float(get_total_norm(other.values())), group_by_layer(other)
    pairs = {layer: [(one[name], other[name]) for name in names] for layer, names in layers.items()}
    return {layer: relative_distance(tensors, floor) for layer, tensors in pairs.items()}


def compute_total_difference(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    return relative_distance((one[name], other[name]) for name in other)


def group_by_layer(tensors: Mapping[str, Tensor]) -> dict[str, list[str]]:
    layers: dict[str, list[str]] = {}
    for name in tensors:
        layers.setdefault(name.rpartition(".")[0] or "(model)", []).append(name)
    return layers


@dataclass(frozen=True)
class SampleWeights:
    """Measured weights of samples or micro-batches, and their weights in one large batch."""

    measured: tuple[float, ...]
    due: tuple[float, ...]  #: in one large batch, measured, too

    def group_sums(self, sizes: Sequence[int]) -> SampleWeights:
        iterators = map(iter, (self.measured, self.due))
        return SampleWeights(*(tuple(sum(islice(weights, size)) for size in sizes) for weights in iterators))

    @property
    def last_to_first(self) -> float:
        """The ratio of the last weight to the first, each relative to its weight in one large batch."""
        first, last = (self.measured[n] / self.due[n] for n in (0, -1))
        return last / first if first else math.inf

    @property
    def is_wrong(self) -> list[bool]:
        pairs = zip(self.measured, self.due, strict=True)
        return [abs(weight - due) > WEIGHT_TOLERANCE * abs(due) for weight, due in pairs]


def compute_statistics_difference(
    one: Mapping[str, Tensor], other: Mapping[str, Tensor], layers: Sequence[str]
) -> float:
    names = [f"{layer}.{name}".removeprefix(".") for layer in layers for name in ("running_mean", "running_var")]
    return relative_distance((one[name], other[name]) for name in names)


def measure_running_weights(layer: nn.Module, sizes: Sequence[int]) -> SampleWeights:
    """Measure the weight of each micro-batch of a window in a layer's running mean.

    A copy of the layer, with a running mean of zero, gets ones as one micro-batch and zeros as the others. The running
    mean is then the weight. In one large batch, the weight of its single update is divided by the number of samples.
    """
    measured = tuple(measure_running_weight(layer, len(sizes), number) for number in range(len(sizes)))
    once = measure_running_weight(layer, 1, 0)
    return SampleWeights(measured, tuple(once * size / sum(sizes) for size in sizes))


@torch.no_grad()
def measure_running_weight(layer: nn.Module, micro_batches: int, number: int) -> float:
    fresh = copy.deepcopy(layer).train()
    fresh.reset_running_stats()  # type: ignore[operator]
    spatial_dims = next((n for n in (1, 2, 3) if f"{n}d" in type(fresh).__name__), 2)
    shape, mean = (1, fresh.num_features, *(2,) * spatial_dims), fresh.running_mean
    for each in range(micro_batches):
        fresh(torch.full(shape, float(each == number), dtype=mean.dtype, device=mean.device))  # type: ignore[arg-type]
    return float(fresh.running_mean.mean())  # type: ignore[operator]
