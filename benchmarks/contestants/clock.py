"""Times of a contestant's epochs."""

from __future__ import annotations

import json
from pathlib import Path
from time import perf_counter


class Clock:
    """Records when training starts, when each epoch ends, and the validation accuracy after the last one."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.accuracy = 0.0

    def start(self) -> None:
        self.times = [perf_counter()]

    def lap(self, accuracy: float) -> None:
        self.times.append(perf_counter())
        self.accuracy = accuracy

    def write(self, file: Path) -> None:
        """Write seconds of the first epoch, mean seconds of the later ones, and the accuracy, as JSON."""
        start, first, *_, last = self.times
        later = (last - first) / (len(self.times) - 2)
        file.write_text(json.dumps({"first": first - start, "later": later, "accuracy": self.accuracy}))
