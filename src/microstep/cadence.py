"""When a run saves: every so many epochs, and if asked for every so many minutes or steps."""

from __future__ import annotations

from time import monotonic


class Cadence:
    """Says when a checkpoint is due. It changes no result: only how much of it a crash can cost.

    Args:
        every_epochs: finished epochs between two checkpoints; the best and the last are saved in any case.
        every_minutes: minutes between two checkpoints in mid-epoch, or None.
        every_steps: windows between two checkpoints in mid-epoch, or None.
    """

    def __init__(self, every_epochs: int = 1, every_minutes: float | None = None, every_steps: int | None = None):
        self.every_epochs, self.every_minutes, self.every_steps = every_epochs, every_minutes, every_steps
        self.saved()

    def saved(self) -> None:
        """Begin to count the minutes anew."""
        self.since = monotonic()

    def after_epoch(self, epoch: int) -> bool:
        """Say whether to save after an epoch, counted from 1."""
        return epoch % self.every_epochs == 0

    def after_window(self, windows: int) -> bool:
        """Say whether to save after so many windows of the run."""
        if self.every_steps is not None and windows % self.every_steps == 0:
            return True
        return self.every_minutes is not None and monotonic() - self.since >= 60 * self.every_minutes
