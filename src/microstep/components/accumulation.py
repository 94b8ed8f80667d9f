"""Gradient accumulation: splits an epoch's order into windows and micro-batches."""

from collections.abc import Iterator
from math import ceil

from microstep.types.data import Positions, Window
from microstep.types.protocols import Accumulation

__all__ = ["Atoms", "Fixed"]


class Fixed:
    """Windows of `micro_batches` micro-batches with `batch_size` samples each, for each of the planned `processes`.

    No sample is dropped: the last window of an epoch, and its last micro-batch, may be smaller.
    """

    def __init__(self, micro_batches: int, batch_size: int, processes: int = 1) -> None:
        self.batch_size = batch_size
        self.window_size = micro_batches * batch_size * processes

    def windows(self, order: Positions) -> Iterator[Window]:
        """Yield the windows of an order. Micro-batches are slices of `order`."""
        for window in slice_order(order, self.window_size):
            yield Window(tuple(slice_order(window, self.batch_size)))

    def steps(self, samples: int) -> int:
        return ceil(samples / self.window_size)


class Atoms:
    """Cuts the windows of a plan into micro-batches of `size` samples. The plan's own micro-batches don't matter."""

    def __init__(self, plan: Accumulation, size: int) -> None:
        self.plan, self.size, self.steps = plan, size, plan.steps

    def windows(self, order: Positions) -> Iterator[Window]:
        for window in self.plan.windows(order):
            window_positions = [position for positions in window.micro_batches for position in positions]
            yield Window(tuple(slice_order(window_positions, self.size)))


def slice_order(order: Positions, size: int) -> Iterator[Positions]:
    return (order[start : start + size] for start in range(0, len(order), size))
