"""Where a run stands."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan

from microstep.types import LoadedWindow, Metrics, StepResult

log = logging.getLogger(__name__)


@dataclass
class Progress:
    """Counts, and the best epoch so far: primitives only, so that a checkpoint can hold it."""

    epoch: int = 0  #: epochs finished
    windows: int = 0  #: skipped ones included
    optimizer_steps: int = 0  #: updates only
    skipped_steps: int = 0
    skipped_in_a_row: int = 0
    samples_seen: int = 0
    best_epoch: int = 0
    best_value: float = 0.0

    def count(self, window: LoadedWindow, result: StepResult) -> None:
        """Count one window."""
        self.windows += 1
        self.samples_seen += window.samples
        self.optimizer_steps += result.updated
        self.skipped_steps += not result.updated
        self.skipped_in_a_row = 0 if result.updated else self.skipped_in_a_row + 1
        if not result.updated:
            log.info("window %d skipped: its gradient overflowed (%d so far)", self.windows, self.skipped_steps)

    def finish_epoch(self, epoch: int, val: Mapping[str, float], metrics: Metrics) -> bool:
        """Count the epoch; say whether it is the best so far. Of equals the later is taken: it has trained longer."""
        value = val[metrics.monitor] if metrics.direction == "max" else -val[metrics.monitor]
        self.epoch = epoch
        if self.best_epoch and not (value >= self.best_value or isnan(self.best_value)):  # a NaN is never the best
            return False
        self.best_epoch, self.best_value = epoch, value
        return True

    def counts(self) -> dict[str, int]:
        """Return what is reported."""
        names = ("epoch", "optimizer_steps", "samples_seen", "skipped_steps")
        return {name: getattr(self, name) for name in names}
