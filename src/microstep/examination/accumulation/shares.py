"""What parts of a window weigh, beside what they weigh in one big batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

TELLING = 1e-9  #: relative error of a weight that counts as wrong


@dataclass(frozen=True)
class Shares:
    """The weight of each part, measured, and what is due to it: its weight in one big batch, measured too."""

    measured: tuple[float, ...]
    due: tuple[float, ...]

    def by(self, sizes: Sequence[int]) -> Shares:
        """Return the sums over consecutive parts."""
        ends = list(accumulate(sizes))
        spans = [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]
        return Shares(
            tuple(sum(self.measured[span]) for span in spans),
            tuple(sum(self.due[span]) for span in spans),
        )

    @property
    def last_to_first(self) -> float:
        """How many times as much as the first part the last one weighs, each held against what is due to it."""
        first, last = (self.measured[n] / self.due[n] for n in (0, -1))
        return last / first if first else math.inf

    @property
    def wrong(self) -> list[bool]:
        """Say of each part whether it weighs anything else than what is due."""
        pairs = zip(self.measured, self.due, strict=True)
        return [abs(weight - due) > TELLING * abs(due) for weight, due in pairs]
