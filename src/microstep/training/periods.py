"""Divides a run into the periods after which it validates."""

from collections.abc import Iterator
from dataclasses import dataclass

from omegaconf import DictConfig

from microstep.run.progress import Progress


@dataclass(frozen=True)
class Periods:
    """Lengths in windows. Skipped windows count.

    A period ends with a validation. It is a pass over the training split, or `validate_every_steps` windows; the last
    one may be shorter. Progress, reports and checkpoints count periods as epochs.
    """

    total: int  #: of the run
    period: int  #: of all periods but the last
    data_pass: int  #: of a pass over the training split

    @classmethod
    def of(cls, config: DictConfig, data_pass: int) -> "Periods":
        total = config.epochs * data_pass if config.steps is None else config.steps
        return cls(total, config.validate_every_steps or data_pass, data_pass)

    def count(self, progress: Progress) -> int:
        """Return the number of periods of the run, including those that are finished."""
        start, end = self.bounds(progress)
        return progress.epoch + (-(-self.total // self.period) - start // self.period if start < end else 0)

    def bounds(self, progress: Progress) -> tuple[int, int]:
        """Return the windows of the run before the current period, and those at its end."""
        start = progress.windows - progress.window
        return start, min(self.total, (start // self.period + 1) * self.period)

    def parts(self, progress: Progress) -> Iterator[tuple[int, int, int]]:
        """Yield what is left of the current period: the pass, from 1, its first window, and the one after the last."""
        done, (_, end) = progress.windows, self.bounds(progress)
        while done < end:
            number, first = divmod(done, self.data_pass)
            last = min(self.data_pass, first + end - done)
            yield number + 1, first, last
            done += last - first
