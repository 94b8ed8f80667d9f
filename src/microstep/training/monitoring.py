"""Loggers and throughput of a training run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from time import perf_counter

from microstep.types.data import Batch, LoadedWindow
from microstep.types.events import EpochReport, Logger, Results, WindowReport
from microstep.types.protocols import Metrics
from microstep.utils.progress_bar import ProgressBars
from microstep.utils.signals import interruptible


class LoggerCollection:
    """Shows progress bars and passes each report to all loggers; windows are due every `report_every`."""

    def __init__(self, bars: ProgressBars, loggers: Sequence[Logger], report_every: int) -> None:
        self.bars, self.loggers, self.report_every = bars, loggers, report_every
        self.last_epoch = 0

    def __enter__(self) -> LoggerCollection:
        return self

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        with ExitStack() as closing:  # if one fails to close, the others are closed all the same, with its error
            for logger in reversed(self.loggers):
                closing.push(lambda _type, failure, _trace, logger=logger: logger.close(failure or error))

    def epochs(self, first: int, last: int) -> Iterator[int]:
        self.last_epoch = last
        return self.bars.epochs(range(first, last + 1), first - 1, last)

    def windows(
        self, windows: Iterable[LoadedWindow], epoch: int, done: int, samples: int, metrics: Metrics
    ) -> Iterator[LoadedWindow]:
        label = f"train {epoch}/{self.last_epoch}"
        running = metrics.running_values
        return self.bars.samples(interruptible(windows), label, samples, lambda w: w.samples, running, done)

    def batches(self, batches: Iterable[Batch], name: str, samples: int, metrics: Metrics) -> Iterator[Batch]:
        running = metrics.running_values
        return self.bars.samples(interruptible(batches), name, samples, lambda batch: len(batch.indices), running)

    def is_due(self, window: int) -> bool:
        return window % self.report_every == 0

    def window(self, report: WindowReport) -> None:
        for logger in self.loggers:
            logger.window(report)

    def epoch(self, report: EpochReport) -> None:
        self.bars.show_epoch({f"val_{name}": value for name, value in report.shown_val.items()})
        for logger in self.loggers:
            logger.epoch(report)

    def finish(self, results: Results) -> None:
        for logger in self.loggers:
            logger.finish(results)


@dataclass
class DataWaitTimer:
    """Sums up the seconds that training has waited for data."""

    waited: float = 0.0


class ThroughputMeter:
    """Measures time and samples per second since the last lap, the start of the epoch and the start of the run."""

    def __init__(self, wait_timer: DataWaitTimer) -> None:
        self.wait_timer = wait_timer
        self.run_began: float | None = None
        self.epoch_began = self.lap_began = 0.0
        self.samples_seen = self.epoch_samples = 0
        self.waited = 0.0
        self.samples_per_second = 0.0  #: of the last epoch's training

    def start_run(self) -> None:
        self.run_began = perf_counter()

    def start_epoch(self, samples_seen: int) -> None:
        """Start the epoch's time and its first lap; a resumed epoch starts at its first window after the resume."""
        self.epoch_began = self.lap_began = perf_counter()
        self.waited = self.wait_timer.waited
        self.epoch_samples = self.samples_seen = samples_seen

    def lap(self, samples_seen: int) -> dict[str, float]:
        """Return samples per second and the share of time spent waiting for data since the last lap."""
        now, samples = perf_counter(), samples_seen - self.samples_seen
        seconds, waited = now - self.lap_began, self.wait_timer.waited - self.waited
        self.lap_began, self.waited, self.samples_seen = now, self.wait_timer.waited, samples_seen
        return {"samples_per_second": samples / seconds, "data_wait_fraction": waited / seconds}

    def end_training(self, samples_seen: int) -> None:
        self.samples_per_second = (samples_seen - self.epoch_samples) / self.epoch_seconds()

    def epoch_seconds(self) -> float:
        return perf_counter() - self.epoch_began

    def total_seconds(self) -> float:
        """Return the seconds since `start_run`; 0 before it."""
        return 0.0 if self.run_began is None else perf_counter() - self.run_began
