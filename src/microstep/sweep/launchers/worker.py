"""A job in a process of its own, wherever a launcher has put it: what kills it kills nothing else."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from pathlib import Path

from omegaconf import DictConfig

from microstep.config.hydra_job import get_run_directory
from microstep.errors import Stopped
from microstep.run.record import mark_failed
from microstep.sweep.definition import STOP_FILE
from microstep.sweep.reporter import JobOutcome
from microstep.utils import signals
from microstep.utils.terminal import silenced

CHILD_POLL_SECONDS = 0.2  #: seconds between two looks at it
SET_PARENT_DEATH_SIGNAL = 1  #: Linux's prctl
LAUNCHER_PID = os.getppid()  #: whoever has started this process: the launcher's own


@dataclass(frozen=True)
class Worker:
    """The task of a launcher's process: it forks one for each job, waits for it, and buries it where it dies.

    The process that waits imports what its runs need, once, and never computes: there are no threads that a fork
    would lose.
    """

    function: Callable[[DictConfig], str | None]
    directory: Path  #: the sweep's

    def __call__(self, config: DictConfig) -> JobOutcome:
        """Run a job to its end; none is started once the sweep is stopped, or has died."""
        if find_stop_signal(self.directory) is not None:
            return JobOutcome()
        ignore_group_signals()
        import_run_modules()
        fork = multiprocessing.get_context("fork")
        receiver, sender = fork.Pipe(duplex=False)
        child = fork.Process(target=run_in_child, args=(self.function, config, sender))
        gc.freeze()  # a fork that looked through all that is imported for garbage would copy it
        child.start()
        gc.unfreeze()
        sender.close()
        wait_for_child(child, self.directory)
        if child.exitcode:
            mark_failed(get_run_directory(), exit_reason(child.exitcode))
        if is_orphaned():
            os._exit(1)  # nobody would ever end this process
        with suppress(EOFError):
            told = receiver.recv()
            assert isinstance(told, JobOutcome)
            return told
        return JobOutcome(exit_reason(child.exitcode or 0))


@cache
def import_run_modules() -> None:
    """Import what a run needs, and what is imported only when it is first used; once."""
    import torch

    import microstep.training.resume  # noqa: F401  # all the rest
    from microstep.utils.plotting import new_figure, png_bytes

    torch.optim.SGD([torch.zeros(1, requires_grad=True)])  # any optimizer imports torch's compiler
    figure = new_figure(1, 1)
    figure.add_subplot()
    png_bytes(figure)  # the first picture finds the fonts


def ignore_group_signals() -> None:
    """Leave signals that reach a whole group of processes to the sweep; a handler of the launcher's own stays."""
    for number in signals.STOP_SIGNALS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, signal.SIG_IGN)


def run_in_child(function: Callable[[DictConfig], str | None], config: DictConfig, sender: Connection) -> None:
    """Run a job in this process, which is its own."""
    os.setpgid(0, 0)  # out of Ctrl-C's reach
    die_with_parent()
    signals.install_signal_handlers()
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # submitit's: it has the job queued again, and then SIGTERM comes
    with silenced() as heard:
        try:
            error = function(config)
        except Stopped:
            error = None  # run.json says so
        sender.send(JobOutcome(error, tuple(heard)))


def die_with_parent() -> None:
    """Be told to stop where the process that waits for this one is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)


def wait_for_child(child: ForkProcess, sweep: Path) -> None:
    """Wait; hand on the signal that stops the sweep, and stop where this process has lost its own parent."""
    told = False
    while child.is_alive():
        child.join(CHILD_POLL_SECONDS)
        signum = find_stop_signal(sweep)
        if signum is not None and not told and child.pid:
            with suppress(ProcessLookupError):
                os.kill(child.pid, signum)
            told = True


def is_orphaned() -> bool:
    """Say whether whoever launched this process is gone."""
    return os.getppid() != LAUNCHER_PID


def find_stop_signal(sweep: Path) -> int | None:
    """Return the signal that has stopped a sweep; where whoever launched this process is gone, SIGTERM."""
    if is_orphaned():
        return signal.SIGTERM
    with suppress(OSError, ValueError):
        return int((sweep / STOP_FILE).read_text())
    return None


def exit_reason(code: int) -> str:
    """Say how a process ended that left no word."""
    if code < 0:
        name = signal.Signals(-code).name
        hint = "; the system kills so where memory is short" if name == "SIGKILL" else ""
        return f"its process was killed by {name}{hint}"
    return f"its process ended with exit code {code} and no word"
