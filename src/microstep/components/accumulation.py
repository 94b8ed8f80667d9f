"""Gradient accumulation: splits an epoch's order into windows and micro-batches."""

from collections.abc import Iterator, Sequence
from math import ceil
from typing import Any

from microstep.errors import OutOfMemory
from microstep.types.data import Positions, Window
from microstep.types.protocols import Accumulation

__all__ = ["Atoms", "Auto", "Fixed"]


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


class Auto(Fixed):
    """Windows of `sizes[0]` samples for each process, in micro-batches of the first of `sizes` that memory holds."""

    def __init__(self, sizes: Sequence[int], processes: int = 1) -> None:
        super().__init__(1, sizes[0], processes)
        self.sizes = sizes

    def reduce(self, reason: str) -> str:
        """Take the next size, and return both in words. Raise OutOfMemory if there is none."""
        size, smaller = self.batch_size, self.sizes[self.sizes.index(self.batch_size) + 1 :]
        if not smaller:
            remedy = "choose a smaller model or smaller images, or precision=amp"
            raise OutOfMemory("accumulation=auto", f"a micro-batch of {size} doesn't fit in memory ({reason})", remedy)
        self.batch_size = smaller[0]
        return f"{size} → {self.batch_size}"

    def state_dict(self) -> dict[str, Any]:
        return {"batch_size": self.batch_size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.batch_size = self.sizes[self.sizes.index(state["batch_size"])]


def slice_order(order: Positions, size: int) -> Iterator[Positions]:
    return (order[start : start + size] for start in range(0, len(order), size))
