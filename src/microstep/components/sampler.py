"""Samplers: choose the samples of an epoch and their order."""

import torch
from torch import Tensor

from microstep.utils.randomness import draw_permutation, draw_uniform

__all__ = ["Balanced", "Shuffle"]


class Balanced:
    """Class-balanced sampling with replacement. An epoch has as many samples as the training split.

    The probability of a class is proportional to count^(1 − power) (Mahajan et al., ECCV 2018). The order is fixed
    before the first sample is read, so windows and their weights stay exact.

    Args:
        train_strata: N class indices; for targets that are no classes, the strata of a stratified split.
        power: 1 makes all classes equally likely, 0.5 is square-root sampling, 0 keeps the class frequencies.
    """

    def __init__(self, train_strata: Tensor, power: float = 1.0) -> None:
        counts = torch.bincount(train_strata).double()
        self.cumulative_weights = counts[train_strata].pow(-power).cumsum(0)

    def order(self, *key: int) -> Tensor:
        """Return N rows. The row at a position depends on `key` and that position alone."""
        samples = len(self.cumulative_weights)
        drawn = draw_uniform(torch.arange(samples), 1, *key)[:, 0] * self.cumulative_weights[-1]
        return torch.searchsorted(self.cumulative_weights, drawn, right=True).clamp(max=samples - 1)


class Shuffle:
    """Sampling without replacement: each epoch holds every training sample once."""

    def __init__(self, train_targets: Tensor) -> None:
        self.samples = len(train_targets)

    def order(self, *key: int) -> Tensor:
        return draw_permutation(self.samples, *key)
