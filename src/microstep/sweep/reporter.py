"""What is told of a sweep besides a line a run: its warnings, and its summary."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from microstep.config.compose import quote_verbatim
from microstep.errors import format_error
from microstep.sweep.definition import Job, Sweep
from microstep.sweep.progress import SweepProgress
from microstep.sweep.summary import write_summary
from microstep.utils.terminal import write_above_bars

MIN_SUMMARY_SECONDS = 30.0  #: seconds at least between two pages of the summary
SUMMARY_COST_FACTOR = 50  #: times as long as the last page took


@dataclass(frozen=True)
class JobOutcome:
    """What a run's process says at its end, besides run.json."""

    error: str | None = None
    warnings: tuple[str, ...] = ()


def to_job_outcome(returned: Any) -> JobOutcome:
    """Return what a launcher brings back of a run."""
    return returned if isinstance(returned, JobOutcome) else JobOutcome(None if returned is None else str(returned))


def get_launcher_overrides(job: Job) -> list[str]:
    """Return what a launcher is given of a job: it runs where this process has found its place to be."""
    return [*job.overrides, quote_verbatim(f"hydra.sweep.subdir={job.name}")]


class SweepReporter:
    """What was said of runs besides run.json, and what is told of them."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self.errors: dict[str, str] = {}
        self.warned: set[str] = set()
        self.next_page = perf_counter() + MIN_SUMMARY_SECONDS

    @contextmanager
    def following(self, jobs: Sequence[Job]) -> Iterator[SweepProgress]:
        """Yield the board of some jobs."""
        progress = SweepProgress(self.sweep, jobs, self.summarise)
        try:
            yield progress
        finally:
            progress.close()
            self.summarise(final=True)

    def summarise(self, final: bool = False) -> None:
        """Write the summary as it is now; its page, which is drawn, only so often that it takes no time to speak of.

        Where it can't be written, for there is no room above all, the runs go on: they are what matters.
        """
        began = perf_counter()
        page = final or began >= self.next_page
        try:
            write_summary(self.sweep.directory, html=page)
        except Exception as error:
            self.warn(f"no summary was written: {format_error(error)}")
        if page:
            now = perf_counter()
            self.next_page = now + max(MIN_SUMMARY_SECONDS, SUMMARY_COST_FACTOR * (now - began))

    def hear(self, job: Job, outcome: JobOutcome) -> None:
        """Take note of what a run's process said; show each warning once."""
        if outcome.error is not None:
            self.errors[job.name] = outcome.error
        for warning in outcome.warnings:
            self.warn(warning)

    def warn(self, warning: str) -> None:
        """Show a warning, the first time."""
        if warning not in self.warned:
            self.warned.add(warning)
            write_above_bars(f"warning: {warning}", sys.stderr)
