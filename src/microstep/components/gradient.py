"""Transforms of a window's gradient, before it is clipped."""

from collections.abc import Sequence

from torch import nn

__all__ = ["Identity"]


class Identity:
    """Leaves the gradient as it is."""

    def __call__(self, parameters: Sequence[nn.Parameter], norm: float) -> None: ...
