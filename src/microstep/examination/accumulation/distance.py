"""How far two gradients are apart."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn.utils import get_total_norm

from microstep.training.profiling.gradients import relative_distance

FLOOR = 1e-3  #: of the whole gradient: what a smaller layer is held against


def by_layer(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> dict[str, float]:
    """Return ‖one − other‖ / ‖other‖ for the parameters of each layer, in the model's order.

    A layer whose gradient is less than a thousandth of the whole is held against that: a bias before a BatchNorm has a
    gradient of zero, and rounding is no difference.
    """
    floor = FLOOR * float(get_total_norm(other.values()))
    return {
        layer: relative_distance([(one[name], other[name]) for name in names], floor)
        for layer, names in layers(other).items()
    }


def whole(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Return ‖one − other‖ / ‖other‖ over all parameters."""
    return relative_distance((one[name], other[name]) for name in other)


def layers(tensors: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Return the names of each layer's parameters."""
    found: dict[str, list[str]] = {}
    for name in tensors:
        found.setdefault(name.rpartition(".")[0] or "(model)", []).append(name)
    return found
