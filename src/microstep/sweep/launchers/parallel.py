"""Runs a sweep's jobs in parallel through a Hydra launcher."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import Any

from hydra.plugins.launcher import Launcher

from microstep.errors import format_error
from microstep.run.lock import is_locked
from microstep.run.record import RunRecord, mark_failed
from microstep.sweep.definition import STOP_FILE, Job, Sweep
from microstep.sweep.progress import SweepProgress, get_record_mtime
from microstep.sweep.reporter import SweepReporter, get_launcher_overrides, to_job_outcome
from microstep.utils import signals
from microstep.utils.files import write_atomic
from microstep.utils.signals import PendingSignal, defer_signals

log = logging.getLogger(__name__)
POLL_SECONDS = 0.2  #: seconds between two looks
STOP_GRACE_SECONDS = 5.0  #: seconds without any run at work after which a launcher that was asked to stop is left alone


def run_in_thread(work: Callable[[], None], busy: Callable[[], bool]) -> None:
    """Do some work and wait for it; once a signal has come, only for as long as something is busy.

    What waits in a cluster's queue may wait for hours; it ends by itself when its turn comes.
    """
    thread = Thread(target=work, daemon=True)
    thread.start()
    idle_since = monotonic()
    for _ in poll_until_done(thread):
        signals.install_signal_handlers()
        if signals.PendingSignal.signum is None or busy():
            idle_since = monotonic()
        if monotonic() - idle_since > STOP_GRACE_SECONDS:
            return


def poll_until_done(thread: Thread) -> Iterator[None]:
    """Yield again and again until a thread is done."""
    while thread.is_alive():
        thread.join(POLL_SECONDS)
        yield


DIED_TWICE_REASON = "its launcher's process died with it, twice"
STOP_POLL_SECONDS = 0.2  #: seconds between two looks at runs that are about to stop


def run_parallel(launcher: Launcher, jobs: Sequence[Job], progress: SweepProgress, reporter: SweepReporter) -> None:
    """Run jobs in a launcher's processes.

    A launcher may give all of its jobs up where one of its own processes dies (loky does). Those that had not begun
    are launched again then, and those that were at work after them, each alone: so it shows which of them it was.
    """
    rounds = [LauncherCall(launcher, jobs, progress, reporter)] if jobs else []
    while rounds:
        now = rounds.pop(0)
        with defer_signals(), progress.watching(partial(update_progress, progress)):
            run_in_thread(now.launch, busy=now.busy)
        begun, waiting = now.left()
        if len(now.jobs) == 1:
            mark_all_failed(begun, progress.sweep)
        elif begun:
            progress.expect([*begun, *waiting])
            again = [waiting] if waiting else []
            rounds = [replace(now, jobs=some) for some in again] + rounds + [replace(now, jobs=[one]) for one in begun]


@dataclass
class LauncherCall:
    """One call of the launcher."""

    launcher: Launcher
    jobs: Sequence[Job]
    board: SweepProgress
    teller: SweepReporter

    def __post_init__(self) -> None:
        self.places = {job.name: self.board.sweep.place(job) for job in self.jobs}

    def launch(self) -> None:
        """Launch the jobs, and wait for them; for those, too, that outlive a launcher which breaks down."""
        self.before = {name: get_record_mtime(place) for name, place in self.places.items()}
        try:
            returns: Sequence[Any] = self.launcher.launch([get_launcher_overrides(job) for job in self.jobs], 0)
            for job, returned in zip(self.jobs, returns, strict=True):
                self.teller.hear(job, to_job_outcome(returned.return_value))
        except Exception as error:
            log.exception("the launcher gave up")
            self.teller.warn(f"the launcher gave up: {format_error(error).partition('. ')[0]}")
        while self.busy():
            sleep(STOP_POLL_SECONDS)

    def busy(self) -> bool:
        """Say whether any of the runs is at work."""
        return any(map(is_locked, self.places.values()))

    def left(self) -> tuple[list[Job], list[Job]]:
        """Return the jobs that haven't come to an end of their own: those that had begun, and those that hadn't."""
        left = [
            job for job in self.jobs if job.name not in self.teller.errors and not has_run_ended(self.places[job.name])
        ]
        begun = [job for job in left if get_record_mtime(self.places[job.name]) != self.before[job.name]]
        return begun, [job for job in left if job not in begun]


def mark_all_failed(jobs: Sequence[Job], sweep: Sweep) -> None:
    """Record the failure of runs that have died without a word."""
    for job in jobs:
        mark_failed(sweep.place(job), DIED_TWICE_REASON)


def has_run_ended(directory: Path) -> bool:
    """Return whether a run has finished or failed."""
    return RunRecord.read(directory).status in ("finished", "failed")


def update_progress(progress: SweepProgress) -> None:
    """Tell of the runs; let the launcher's processes know of a signal, wherever they are."""
    if PendingSignal.signum is not None and not (progress.sweep.directory / STOP_FILE).exists():
        write_atomic(progress.sweep.directory / STOP_FILE, str(PendingSignal.signum).encode(), durable=False)
    progress.look()
