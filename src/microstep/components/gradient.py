"""Transforms of a window's gradient, before it is clipped."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["AdaptiveClipping", "Identity"]


class Identity:
    """Leaves the gradient as it is."""

    def __call__(self, parameters: Sequence[nn.Parameter], norm: float) -> None: ...


class AdaptiveClipping:
    """Clips each unit's gradient to a share of the unit's weights (adaptive gradient clipping; Brock et al., 2021).

    A unit is a row of a weight: a neuron or a filter. A vector, such as a bias, is one unit. The last layer, which is
    the last weight and the last vector if it has a number for each row of that weight, is not clipped.

    Args:
        clipping: largest norm of the gradient, relative to the norm of the weights.
        eps: least norm that weights count with, so that zeros can be trained.
    """

    def __init__(self, clipping: float = 0.01, eps: float = 1e-3) -> None:
        self.clipping, self.eps = clipping, eps

    def __call__(self, parameters: Sequence[nn.Parameter], norm: float) -> None:
        head = find_last_layer(parameters)
        for parameter in parameters:
            if parameter.grad is not None and not any(parameter is one for one in head):
                largest = self.clipping * unit_norms(parameter.detach()).clamp(min=self.eps)
                tiny = torch.finfo(largest.dtype).tiny
                parameter.grad.mul_((largest / unit_norms(parameter.grad).clamp(min=tiny)).clamp(max=1))


def find_last_layer(parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
    weight = [p for p in parameters if p.dim() > 1][-1:]
    vector = [p for p in parameters if p.dim() == 1][-1:]
    return weight + [bias for bias in vector if weight and len(bias) == len(weight[0])]


def unit_norms(values: Tensor) -> Tensor:
    """Return the L2 norm of each row, to be broadcast; of a vector, its own."""
    rows = list(range(1, values.dim()))
    return torch.linalg.vector_norm(values, dim=rows or None, keepdim=bool(rows))  # type: ignore[no-any-return]
