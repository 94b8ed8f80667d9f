"""Accumulation: splits an epoch's order into windows and micro-batches."""

from collections.abc import Iterator
from math import ceil

from microstep.types.data import Positions, Window

__all__ = ["Fixed"]


class Fixed:
    """Windows of `micro_batches` micro-batches of `batch_size` samples each; the epoch's last ones are shorter.

    No sample is dropped: an epoch's last micro-batch holds what is left, and its last window too.
    """

    def __init__(self, micro_batches: int, batch_size: int) -> None:
        self.batch_size = batch_size
        self.window_size = micro_batches * batch_size

    def windows(self, order: Positions) -> Iterator[Window]:
        """Yield the windows of an order, as slices of it."""
        for window in slice_order(order, self.window_size):
            yield Window(tuple(slice_order(window, self.batch_size)))

    def steps(self, samples: int) -> int:
        """Return the number of windows that `samples` make."""
        return ceil(samples / self.window_size)


def slice_order(order: Positions, size: int) -> Iterator[Positions]:
    """Yield consecutive slices of at most `size`; a range is cut into ranges, without a copy."""
    return (order[start : start + size] for start in range(0, len(order), size))
