"""Samplers: choose the samples of an epoch and their order."""

import torch
from torch import Tensor

from microstep.utils.randomness import draw_permutation, draw_uniform

__all__ = ["Balanced", "Shuffle"]


class Balanced:
    """As many samples an epoch as there are, drawn with replacement, a class's chance being ∝ count^(1 − power).

    With power 1 every class is as likely as any other, with 0.5 in between ("square-root sampling", Mahajan et al.,
    ECCV 2018), with 0 as likely as it comes. The order is fixed before the first sample is read, so that windows and
    their weights stay exact.
    """

    def __init__(self, train_targets: Tensor, power: float = 1.0) -> None:
        counts = torch.bincount(train_targets).double()
        self.cumulated = counts[train_targets].pow(-power).cumsum(0)

    def order(self, *key: int) -> Tensor:
        """Return the drawn rows: the sample at a position depends on (key, position) alone."""
        samples = len(self.cumulated)
        drawn = draw_uniform(torch.arange(samples), 1, *key)[:, 0] * self.cumulated[-1]
        return torch.searchsorted(self.cumulated, drawn, right=True).clamp(max=samples - 1)


class Shuffle:
    """Each epoch holds every training sample once."""

    def __init__(self, train_targets: Tensor) -> None:
        self.samples = len(train_targets)

    def order(self, *key: int) -> Tensor:
        """Return a permutation of the rows."""
        return draw_permutation(self.samples, *key)
