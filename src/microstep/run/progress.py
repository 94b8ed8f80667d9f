"""Where a run stands."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan

from microstep.types.data import LoadedWindow, StepResult
from microstep.types.protocols import Metrics

log = logging.getLogger(__name__)


@dataclass(frozen=True, order=True)
class Position:
    """Where a run can be taken up again: so many epochs, and so many windows of the next."""

    epoch: int = 0
    window: int = 0

    def __str__(self) -> str:
        return f"epoch {self.epoch}" if not self.window else f"epoch {self.epoch + 1}, window {self.window}"


@dataclass
class Progress:
    """Counts, and the best epoch so far: primitives only, so that a checkpoint can hold it."""

    epoch: int = 0  #: epochs finished
    window: int = 0  #: windows of the epoch that is not; all of them while it is validated
    windows: int = 0  #: of the whole run, skipped ones included
    optimizer_steps: int = 0  #: updates only
    skipped_steps: int = 0
    skipped_in_a_row: int = 0
    samples_seen: int = 0
    epoch_samples: int = 0  #: those of the epoch that is not finished
    lr: float = 0.0  #: of the last step
    value: float = 0.0  #: the monitored metric after the last epoch, the higher the better
    best_epoch: int = 0
    best_value: float = 0.0
    seconds: float = 0.0  #: that earlier processes have trained

    @property
    def place(self) -> Position:
        """Where it stands."""
        return Position(self.epoch, self.window)

    def count(self, window: LoadedWindow, result: StepResult, lr: float) -> None:
        """Count one window, taken at a learning rate."""
        self.window = window.number + 1
        self.windows += 1
        self.samples_seen += window.samples
        self.epoch_samples += window.samples
        self.optimizer_steps += result.updated
        self.skipped_steps += not result.updated
        self.skipped_in_a_row = 0 if result.updated else self.skipped_in_a_row + 1
        self.lr = lr
        if not result.updated:
            log.info("window %d skipped: its gradient overflowed (%d so far)", self.windows, self.skipped_steps)

    def finish_epoch(self, epoch: int, val: Mapping[str, float], metrics: Metrics) -> bool:
        """Count the epoch; say whether it is the best so far. Of equals the later is taken: it has trained longer."""
        self.value = val[metrics.monitor] if metrics.direction == "max" else -val[metrics.monitor]
        self.epoch, self.window, self.epoch_samples = epoch, 0, 0
        if self.best_epoch and not (self.value >= self.best_value or isnan(self.best_value)):  # a NaN is never the best
            return False
        self.take_as_best()
        return True

    def take_as_best(self) -> None:
        """Let the last epoch be the best; none, where the next has begun already."""
        self.best_epoch, self.best_value = (0, 0.0) if self.window else (self.epoch, self.value)

    def counts(self) -> dict[str, int]:
        """Return what is reported."""
        names = ("epoch", "optimizer_steps", "samples_seen", "skipped_steps")
        return {name: getattr(self, name) for name in names}
