"""Runs one after the other, in this process."""

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
    """Run jobs in this process, one after the other: they share data, and nothing else."""
    with share_datasets(), imports_frozen_in_gc(), progress.watching(progress.glance):
        for job in jobs:
            with isolate_job(), silenced() as heard:
                error = launch_job(launcher, job)
            reporter.hear(job, JobOutcome(error, tuple(heard)))
            progress.look()


@contextmanager
def imports_frozen_in_gc() -> Iterator[None]:
    """Leave what is there by now out of collections: looking through all of torch takes a tenth of a second a job."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def launch_job(launcher: Launcher, job: Job) -> str | None:
    """Run one job here; return why it failed."""
    try:
        (returned,) = launcher.launch([get_launcher_overrides(job)], job.number)
        return to_job_outcome(returned.return_value).error
    except Exception as error:  # a log that can't be opened, above all
        return format_error(error)
