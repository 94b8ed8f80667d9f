"""Every sample once, in a random order."""

from torch import Tensor

from microstep.utils.randomness import permutation


class Shuffle:
    """Each epoch holds every training sample once."""

    def __init__(self, train_targets: Tensor) -> None:
        self.samples = len(train_targets)

    def order(self, *key: int) -> Tensor:
        """Return a permutation of the rows."""
        return permutation(self.samples, *key)
