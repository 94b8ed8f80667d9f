"""Runs one after the other, in this process."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra.plugins.launcher import Launcher

from microstep.components.dataset.sharing import share_datasets
from microstep.errors import format_error
from microstep.sweep.definition import Job
from microstep.sweep.launchers.isolation import isolated
from microstep.sweep.progress import Board
from microstep.sweep.reporter import Teller, Told, told, words
from microstep.utils.terminal import silenced


def in_turn(launcher: Launcher, jobs: Sequence[Job], progress: Board, reporter: Teller) -> None:
    """Run jobs in this process, one after the other: they share data, and nothing else."""
    with share_datasets(), imports_frozen(), progress.watching(progress.glance):
        for job in jobs:
            with isolated(), silenced() as heard:
                error = launched_alone(launcher, job)
            reporter.hear(job, Told(error, tuple(heard)))
            progress.look()


@contextmanager
def imports_frozen() -> Iterator[None]:
    """Leave what is there by now out of collections: looking through all of torch takes a tenth of a second a job."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def launched_alone(launcher: Launcher, job: Job) -> str | None:
    """Run one job here; return why it failed."""
    try:
        (returned,) = launcher.launch([words(job)], job.number)
        return told(returned.return_value).error
    except Exception as error:  # a log that can't be opened, above all
        return format_error(error)
