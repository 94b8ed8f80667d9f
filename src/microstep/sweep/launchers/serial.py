"""Runs the jobs of a sweep one after the other in this process."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra.plugins.launcher import Launcher

from microstep.components.dataset.sharing import share_datasets
from microstep.errors import format_error
from microstep.sweep.definition import Job
from microstep.sweep.launchers.isolation import isolate_job
from microstep.sweep.progress import SweepProgress
from microstep.sweep.reporter import JobOutcome, SweepReporter, get_launcher_overrides, to_job_outcome
from microstep.utils.terminal import silenced


def run_serial(launcher: Launcher, jobs: Sequence[Job], progress: SweepProgress, reporter: SweepReporter) -> None:
    """Run jobs one after the other. They share loaded data and nothing else.

    Args:
        launcher: Hydra's launcher that runs jobs in this process.
        jobs: jobs to run.
        progress: progress of these jobs.
        reporter: receives the outcome of each job.
    """
    with share_datasets(), imports_frozen_in_gc(), progress.update_in_background(progress.redraw):
        for job in jobs:
            with isolate_job(), silenced() as warnings:
                error = launch_job(launcher, job)
            reporter.record_outcome(job, JobOutcome(error, tuple(warnings)))
            progress.update()


@contextmanager
def imports_frozen_in_gc() -> Iterator[None]:
    """Exclude existing objects from garbage collection. Scanning those of torch takes 0.1 s per job."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def launch_job(launcher: Launcher, job: Job) -> str | None:
    """Run one job; return its error, or None if it succeeded."""
    try:
        (returned,) = launcher.launch([get_launcher_overrides(job)], job.number)
        return to_job_outcome(returned.return_value).error
    except Exception as error:  # for example a log file that can't be opened
        return format_error(error)
