"""Reports on a sweep: errors and warnings of its runs, and its summary."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Self

from microstep.config.overrides import quote_verbatim
from microstep.errors import format_error
from microstep.sweep.definition import Job, Sweep
from microstep.sweep.progress import SweepProgress
from microstep.sweep.summary.write import write_summary
from microstep.utils.terminal import write_above_bars
from microstep.utils.text import truncate_middle

MIN_SUMMARY_SECONDS = 30.0  #: minimum time between two writes of summary.html
SUMMARY_COST_FACTOR = 50  #: minimum time between two writes of summary.html, as a multiple of the time that one takes
MAX_WARNINGS, MAX_WARNING_LENGTH = 100, 1000  #: most warnings of a run that are shown, and characters of each


@dataclass(frozen=True)
class JobOutcome:
    """Error and warnings of a run, as its process reports them."""

    error: str | None = None
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, error: str | None, warnings: Sequence[str]) -> Self:
        """Return an outcome of limited size, with each warning once."""
        different = list(dict.fromkeys(truncate_middle(warning, MAX_WARNING_LENGTH) for warning in warnings))
        return cls(error, tuple(different[:MAX_WARNINGS]))


def to_job_outcome(returned: Any) -> JobOutcome:
    return returned if isinstance(returned, JobOutcome) else JobOutcome(None if returned is None else str(returned))


def get_launcher_overrides(job: Job) -> list[str]:
    return [*job.overrides, quote_verbatim(f"hydra.sweep.subdir={job.name}")]


class SweepReporter:
    """Collects the errors of runs, shows each warning once, and writes the summary of the sweep."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self.errors: dict[str, str] = {}  #: by the name of the run
        self.shown_warnings: set[str] = set()
        self.next_html_time = perf_counter() + MIN_SUMMARY_SECONDS

    @contextmanager
    def follow_jobs(self, jobs: Sequence[Job], most: int) -> Iterator[SweepProgress]:
        """Show the progress of some jobs, of at most so many of the sweep."""
        progress = SweepProgress(self.sweep, jobs, self.write_summary_files, most)
        try:
            yield progress
        finally:
            progress.close()
            self.write_summary_files(final=True)

    def write_summary_files(self, final: bool = False) -> None:
        """Write the summary: summary.html rarely, because its charts take time, and in any case if `final`.

        An error, for example a full disk, is shown as a warning and does not stop the runs.
        """
        began = perf_counter()
        html = final or began >= self.next_html_time
        try:
            write_summary(self.sweep.directory, html=html)
        except Exception as error:
            self.warn_once(f"no summary was written: {format_error(error)}")
        if html:
            now = perf_counter()
            self.next_html_time = now + max(MIN_SUMMARY_SECONDS, SUMMARY_COST_FACTOR * (now - began))

    def record_outcome(self, job: Job, outcome: JobOutcome) -> None:
        if outcome.error is not None:
            self.errors[job.name] = outcome.error
        for warning in outcome.warnings:
            self.warn_once(warning)

    def warn_once(self, warning: str) -> None:
        if warning not in self.shown_warnings:
            self.shown_warnings.add(warning)
            write_above_bars(f"warning: {warning}", sys.stderr)
