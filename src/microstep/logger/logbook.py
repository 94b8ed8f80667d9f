"""All that is seen and kept of a run, behind one door."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType

from microstep.types.data import Batch, LoadedWindow
from microstep.types.events import EpochReport, Logger, Results, WindowReport
from microstep.types.protocols import Metrics
from microstep.utils.progress_bar import Bars
from microstep.utils.signals import stoppable


class Logbook:
    """Bars over the loops, and every logger told of what happened in them.

    Args:
        bars: what a terminal shows while a loop runs.
        loggers: each is told of windows, epochs and results.
        every: windows between two reports.
    """

    def __init__(self, bars: Bars, loggers: Sequence[Logger], every: int) -> None:
        self.bars, self.loggers, self.every = bars, loggers, every
        self.last = 0

    def __enter__(self) -> Logbook:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with ExitStack() as closing:  # one that can't close keeps no other from it
            for logger in reversed(self.loggers):
                closing.callback(logger.close, error)

    def epochs(self, first: int, last: int) -> Iterator[int]:
        """Yield the epochs' numbers under the outer bar."""
        self.last = last
        return self.bars.epochs(range(first, last + 1), first - 1, last)

    def windows(
        self, windows: Iterable[LoadedWindow], epoch: int, done: int, samples: int, metrics: Metrics
    ) -> Iterator[LoadedWindow]:
        """Yield the windows that are left of an epoch, of whose samples so many are done, under a bar."""
        label = f"train {epoch}/{self.last}"
        return self.bars.samples(stoppable(windows), label, samples, lambda w: w.samples, metrics.running, done)

    def batches(self, batches: Iterable[Batch], name: str, samples: int, metrics: Metrics) -> Iterator[Batch]:
        """Yield a split's batches under a bar."""
        return self.bars.samples(stoppable(batches), name, samples, lambda batch: len(batch.indices), metrics.running)

    def wants(self, window: int) -> bool:
        """Say whether this window is to be reported."""
        return window % self.every == 0

    def window(self, report: WindowReport) -> None:
        """Tell of a window."""
        for logger in self.loggers:
            logger.window(report)

    def epoch(self, report: EpochReport) -> None:
        """Tell of an epoch."""
        self.bars.show_epoch({f"val_{name}": value for name, value in list(report.val.items())[:2]})
        for logger in self.loggers:
            logger.epoch(report)

    def finish(self, results: Results) -> None:
        """Tell of the results."""
        for logger in self.loggers:
            logger.finish(results)
