"""Loggers, throughput and divergence of a training run."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from time import perf_counter
from types import TracebackType

import torch

from microstep.errors import Diverged
from microstep.run.progress import Position
from microstep.types.data import Batch, LoadedWindow, StepResult
from microstep.types.events import EpochReport, Logger, Results, WindowReport
from microstep.types.protocols import Metrics
from microstep.utils.progress_bar import ProgressBars
from microstep.utils.signals import interruptible

log = logging.getLogger(__name__)


class LoggerCollection:
    """Bars over the loops, and every logger told of what happened in them.

    Args:
        bars: what a terminal shows while a loop runs.
        loggers: each is told of windows, epochs and results.
        report_every: windows between two reports.
    """

    def __init__(self, bars: ProgressBars, loggers: Sequence[Logger], report_every: int) -> None:
        self.bars, self.loggers, self.every = bars, loggers, report_every
        self.last = 0

    def __enter__(self) -> LoggerCollection:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
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
        return self.bars.samples(
            interruptible(windows), label, samples, lambda w: w.samples, metrics.running_values, done
        )

    def batches(self, batches: Iterable[Batch], name: str, samples: int, metrics: Metrics) -> Iterator[Batch]:
        """Yield a split's batches under a bar."""
        return self.bars.samples(
            interruptible(batches), name, samples, lambda batch: len(batch.indices), metrics.running_values
        )

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


@dataclass
class DataWaitTimer:
    """Seconds that training has waited for data."""

    waited: float = 0.0


class ThroughputMeter:
    """Stopwatches: since the last lap, since the epoch began, since the run began."""

    def __init__(self, wait_timer: DataWaitTimer) -> None:
        self.clock = wait_timer
        self.run_began: float | None = None
        self.epoch_began = self.lap_began = 0.0
        self.samples_seen = self.epoch_samples = 0
        self.waited = 0.0
        self.samples_per_second = 0.0  #: of the last epoch's training

    def start_run(self) -> None:
        """Begin to count the run's seconds."""
        self.run_began = perf_counter()

    def start_epoch(self, samples_seen: int) -> None:
        """An epoch's training begins, or goes on: what came before is in no lap."""
        self.epoch_began = self.lap_began = perf_counter()
        self.waited = self.clock.waited
        self.epoch_samples = self.samples_seen = samples_seen

    def lap(self, samples_seen: int) -> dict[str, float]:
        """Return samples a second and the share of time waited for data since the last lap."""
        now, samples = perf_counter(), samples_seen - self.samples_seen
        seconds, waited = now - self.lap_began, self.clock.waited - self.waited
        self.lap_began, self.waited, self.samples_seen = now, self.clock.waited, samples_seen
        return {"samples_per_second": samples / seconds, "data_wait_fraction": waited / seconds}

    def end_training(self, samples_seen: int) -> None:
        """An epoch's training is over: what follows is validation."""
        self.samples_per_second = (samples_seen - self.epoch_samples) / self.epoch_seconds()

    def epoch_seconds(self) -> float:
        """Return the seconds since the epoch began."""
        return perf_counter() - self.epoch_began

    def total_seconds(self) -> float:
        """Return the seconds since `start_run`; 0 before it."""
        return 0.0 if self.run_began is None else perf_counter() - self.run_began


MAX_NAMED_SAMPLES = 12  #: samples that the line names; train.log has all


def divergence_error(
    epoch: int, window: LoadedWindow, result: StepResult, precision: str, checkpoint_position: Position | None
) -> Diverged:
    """Return the error, which names the samples of the window by their place in the official data; it reads them again.

    Args:
        checkpoint_position: where the last checkpoint stands; None where none are made.
    """
    indices = torch.cat([batch.indices.cpu() for batch in window.batches]).tolist()
    where = f"epoch {epoch}, step {window.number + 1}"
    log.error("%s is made of samples %s", where, indices)
    named = ", ".join(map(str, indices[:MAX_NAMED_SAMPLES])) + (
        f", … ({len(indices)}, all in train.log)" if indices[MAX_NAMED_SAMPLES:] else ""
    )
    loss, norm = result.loss.item(), result.grad_norm
    reason = f"the loss ({loss:.4g}) or its gradient ({norm:.4g}) is not finite in {precision}, over samples {named}"
    kept = (
        f"the checkpoint of {checkpoint_position} is kept"
        if checkpoint_position != Position()
        else "no checkpoint was written yet"
    )
    note = "" if checkpoint_position is None else f"; {kept}"
    return Diverged(where, reason, f"lower optimizer.lr or set max_grad_norm{note}")
