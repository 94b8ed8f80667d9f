"""Counts the progress of a run."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan

from microstep.errors import Diverged
from microstep.run.monitor import Monitor
from microstep.types.data import LoadedWindow, StepResult

log = logging.getLogger(__name__)


@dataclass(frozen=True, order=True)
class Position:
    """Position from which a run can be resumed. An epoch ends with a validation, also if that follows every M steps."""

    epoch: int = 0  #: epochs finished
    window: int = 0  #: windows finished of the next epoch

    def __str__(self) -> str:
        return f"epoch {self.epoch}" if not self.window else f"epoch {self.epoch + 1}, window {self.window}"


@dataclass
class Progress:
    """Counts of a run and its best epoch so far. A checkpoint stores all fields, so they are primitives."""

    epoch: int = 0  #: epochs finished; with `validate_every_steps`, validations
    window: int = 0  #: windows finished of the current epoch, reset after its validation
    windows: int = 0  #: of the whole run, including skipped ones
    optimizer_steps: int = 0  #: without skipped ones
    skipped_steps: int = 0
    skipped_in_a_row: int = 0
    samples_seen: int = 0
    epoch_samples: int = 0  #: samples seen in the current epoch
    lr: float = 0.0  #: of the last step
    value: float = 0.0  #: monitored metric after the last epoch, negated if lower is better
    best_epoch: int = 0
    best_value: float = 0.0
    seconds: float = 0.0  #: training time of earlier processes
    stopped: str | None = None  #: why the run stopped before its last epoch

    @property
    def position(self) -> Position:
        return Position(self.epoch, self.window)

    def count(self, window: LoadedWindow, result: StepResult, lr: float) -> None:
        self.window += 1
        self.windows += 1
        self.samples_seen += window.samples
        self.epoch_samples += window.samples
        self.optimizer_steps += result.updated
        self.skipped_steps += not result.updated
        self.skipped_in_a_row = 0 if result.updated else self.skipped_in_a_row + 1
        self.lr = lr
        if not result.updated:
            log.info("window %d skipped: its gradient overflowed (%d so far)", self.windows, self.skipped_steps)

    def finish_epoch(self, epoch: int, val: Mapping[str, float], monitor: Monitor) -> bool:
        """Count an epoch, and return whether it is the best so far.

        Of equal epochs the latest is the best. An epoch whose loss is not finite is the best only until a finite one.
        """
        self.value = monitor.value(val)
        self.epoch, self.window, self.epoch_samples = epoch, 0, 0
        if self.best_epoch and not (self.value >= self.best_value or isnan(self.best_value)):  # a NaN is never the best
            return False
        self.mark_as_best()
        return True

    def check_best_is_finite(self) -> None:
        if isnan(self.best_value):
            reason = "the validation loss was not finite after any epoch"
            raise Diverged(f"epoch {self.best_epoch}", reason, "lower optimizer.lr or set max_grad_norm")

    def mark_as_best(self) -> None:
        """Mark the last epoch as the best; if the next one has begun, mark none."""
        self.best_epoch, self.best_value = (0, 0.0) if self.window else (self.epoch, self.value)

    def counts(self) -> dict[str, int]:
        names = ("epoch", "optimizer_steps", "samples_seen", "skipped_steps")
        return {name: getattr(self, name) for name in names}
