"""A model that counts what earlier runs of its process have left."""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import prod
from pathlib import Path
from weakref import WeakSet

from torch import Tensor, nn

MODELS: WeakSet[Counted] = WeakSet()


def count_descriptors() -> int:
    """Return the number of open descriptors, without the few fonts that matplotlib keeps open."""
    links = [os.path.realpath(file) for file in Path("/proc/self/fd").iterdir()]
    return sum(not link.endswith(".ttf") for link in links)


class Counted(nn.Sequential):
    """A perceptron that may fail at its first micro-batch.

    It appends a line to the file `$COUNTS`: open descriptors, resident kilobytes, models of earlier runs.
    """

    def __init__(self, input_shape: Sequence[int], num_classes: int, number: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(prod(input_shape), num_classes))
        self.fails = number % 3 == 0
        kilobytes = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
        with Path(os.environ["COUNTS"]).open("a") as stream:
            print(count_descriptors(), kilobytes, len(MODELS), file=stream)
        MODELS.add(self)

    def forward(self, inputs: Tensor) -> Tensor:
        if self.fails:
            raise RuntimeError("planted")
        return super().forward(inputs)

    def __hash__(self) -> int:
        return id(self)
