"""How far two gradients are apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

FLOOR = 1e-3  #: of the whole gradient: what a smaller layer is held against


def by_layer(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> dict[str, float]:
    """Return ‖one − other‖ / ‖other‖ for the parameters of each layer, in the model's order.

    A layer whose gradient is less than a thousandth of the whole is held against that: a bias before a BatchNorm has a
    gradient of zero, and rounding is no difference.
    """
    floor = FLOOR * norm(other.values())
    return {
        layer: relative(difference(one, other, names), max(norm(other[name] for name in names), floor))
        for layer, names in layers(other).items()
    }


def whole(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Return ‖one − other‖ / ‖other‖ over all parameters."""
    return relative(difference(one, other, list(other)), norm(other.values()))


def layers(tensors: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Return the names of each layer's parameters."""
    found: dict[str, list[str]] = {}
    for name in tensors:
        found.setdefault(name.rpartition(".")[0] or "(model)", []).append(name)
    return found


def difference(one: Mapping[str, Tensor], other: Mapping[str, Tensor], names: list[str]) -> float:
    return norm(one[name].double() - other[name].double() for name in names)


def norm(tensors: Iterable[Tensor]) -> float:
    """Return the Euclidean norm of all numbers together."""
    parts = [torch.linalg.vector_norm(tensor.double()) for tensor in tensors]
    return float(torch.linalg.vector_norm(torch.stack(parts))) if parts else 0.0


def relative(difference: float, size: float) -> float:
    """Return a relative difference; of nothing, nothing is none."""
    return difference / size if size else float(difference > 0)
