"""A multilayer perceptron."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import nn


def mlp(
    input_shape: Sequence[int], num_classes: int, hidden: Sequence[int] = (128, 64), dropout: float = 0.0
) -> nn.Sequential:
    """Return linear layers with ReLU and dropout between them: N × input_shape → N × num_classes."""
    widths = [prod(input_shape), *hidden, num_classes]
    layers = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU(), nn.Dropout(dropout))]
    return nn.Sequential(nn.Flatten(), *layers[:-2])
