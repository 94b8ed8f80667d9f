"""Runs the jobs of a sweep in parallel through a Hydra launcher."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from threading import Thread
from time import monotonic, sleep
from typing import Any

from hydra.plugins.launcher import Launcher

from microstep.errors import format_error
from microstep.run.lock import is_locked
from microstep.run.record import RunRecord, mark_failed
from microstep.sweep.definition import STOP_FILE, Job
from microstep.sweep.progress import SweepProgress, get_record_mtime
from microstep.sweep.reporter import SweepReporter, get_launcher_overrides, to_job_outcome
from microstep.utils import signals
from microstep.utils.files import write_atomic
from microstep.utils.signals import PendingSignal, defer_signals

log = logging.getLogger(__name__)
POLL_SECONDS = 0.2  #: seconds between two checks of the launcher's thread, and of runs that are about to stop
STOP_GRACE_SECONDS = 5.0  #: after a signal, seconds without an active run before the launcher is abandoned
DIED_TWICE_REASON = "its launcher's process died with it, twice"


def run_in_thread(work: Callable[[], None], is_busy: Callable[[], bool]) -> None:
    """Run a function in a thread and wait for it; after a signal, wait only while runs are active.

    Jobs in a cluster's queue, which may wait for hours, are not waited for: they exit when they start.
    """
    thread = Thread(target=work, daemon=True)
    thread.start()
    idle_since = monotonic()
    while thread.is_alive() and monotonic() - idle_since <= STOP_GRACE_SECONDS:
        thread.join(POLL_SECONDS)
        signals.install_signal_handlers()  # again: a launcher may have replaced them
        if PendingSignal.signum is None or is_busy():
            idle_since = monotonic()


def run_parallel(launcher: Launcher, jobs: Sequence[Job], progress: SweepProgress, reporter: SweepReporter) -> None:
    """Run jobs in the processes of a launcher.

    Some launchers (joblib with loky) abandon all jobs if one of their processes dies. Jobs that had not started are
    then launched again together. After them, each job that was active is launched alone, which shows the one that
    kills its process; that one is marked as failed.
    """
    calls = [LauncherCall(launcher, jobs, progress, reporter)] if jobs else []
    while calls:
        call = calls.pop(0)
        with defer_signals(), progress.update_in_background(partial(update_progress, progress)):
            run_in_thread(call.launch, is_busy=call.is_busy)
        started, waiting = call.unfinished_jobs()
        if len(call.jobs) == 1:
            for job in started:
                mark_failed(progress.sweep.get_directory(job), DIED_TWICE_REASON)
        elif started:
            progress.expect_jobs([*started, *waiting])
            together = [replace(call, jobs=waiting)] if waiting else []
            calls = [*together, *calls, *(replace(call, jobs=[job]) for job in started)]


@dataclass
class LauncherCall:
    """One call of the launcher."""

    launcher: Launcher
    jobs: Sequence[Job]
    progress: SweepProgress
    reporter: SweepReporter

    def __post_init__(self) -> None:
        self.directories = {job.name: self.progress.sweep.get_directory(job) for job in self.jobs}

    def launch(self) -> None:
        """Launch the jobs and wait for them. Runs that outlive a launcher that fails are waited for, too."""
        self.mtimes = {name: get_record_mtime(directory) for name, directory in self.directories.items()}
        try:
            returns: Sequence[Any] = self.launcher.launch([get_launcher_overrides(job) for job in self.jobs], 0)
            for job, returned in zip(self.jobs, returns, strict=True):
                self.reporter.record_outcome(job, to_job_outcome(returned.return_value))
        except Exception as error:
            log.exception("the launcher failed")
            self.reporter.warn_once(f"the launcher failed: {format_error(error).partition('. ')[0]}")
        while self.is_busy():
            sleep(POLL_SECONDS)

    def is_busy(self) -> bool:
        return any(map(is_locked, self.directories.values()))

    def unfinished_jobs(self) -> tuple[list[Job], list[Job]]:
        """Return the jobs without an outcome: those that had started, and those that had not."""
        started, waiting = list[Job](), list[Job]()
        for job in self.jobs:
            directory = self.directories[job.name]
            ended = RunRecord.read(directory).status in ("finished", "failed")
            if not ended and job.name not in self.reporter.errors:
                has_started = get_record_mtime(directory) != self.mtimes[job.name]
                (started if has_started else waiting).append(job)
        return started, waiting


def update_progress(progress: SweepProgress) -> None:
    """Update the progress. Write a pending signal to the stop file, for processes that no signal reaches."""
    stop_file = progress.sweep.directory / STOP_FILE
    if PendingSignal.signum is not None and not stop_file.exists():
        write_atomic(stop_file, str(PendingSignal.signum).encode(), durable=False)
    progress.update()
