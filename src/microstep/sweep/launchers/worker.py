"""Runs each job in a process of its own inside a launcher's process, so that a job that is killed stops no other."""

import ctypes
import gc
import multiprocessing
import os
import pickle
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from mmap import mmap
from multiprocessing.context import ForkProcess
from pathlib import Path

from omegaconf import DictConfig

from microstep.config.hydra_job import get_run_directory
from microstep.config.processes import real_processes
from microstep.errors import Stopped, StorageError, format_error
from microstep.run.record import mark_failed
from microstep.sweep.definition import STOP_FILE
from microstep.sweep.launchers.gpus import claim_gpus
from microstep.sweep.reporter import JobOutcome
from microstep.utils import signals
from microstep.utils.signals import describe_exit
from microstep.utils.terminal import log_python_warnings, silenced

CHILD_POLL_SECONDS = 0.2  #: seconds between two checks of the child
MAX_OUTCOME_BYTES = 2**20  #: more than the longest outcome takes
SET_PARENT_DEATH_SIGNAL = 1  #: PR_SET_PDEATHSIG of Linux's prctl
LAUNCHER_PID = os.getppid()  #: parent of this process


@dataclass(frozen=True)
class Worker:
    """Runs each job in a forked process and marks the run as failed if that process dies without reporting a result.

    The forking process imports the modules that runs need once. It computes nothing, so it has no threads, which a
    fork would lose.
    """

    function: Callable[[DictConfig], str | None]  #: runs a job, and returns its error
    directory: Path  #: of the sweep
    gpus: Sequence[str] = ()  #: to share among the runs of this machine; empty if the launcher does it

    def __call__(self, config: DictConfig) -> JobOutcome:
        """Run a job, and return its outcome. It is not started if the sweep was stopped or its process is gone."""
        if find_stop_signal(self.directory) is not None:
            return JobOutcome()
        ignore_group_signals()
        import_run_modules()
        fork = multiprocessing.get_context("fork")
        memory = mmap(-1, MAX_OUTCOME_BYTES)  # shared with the child, which a full pipe would block
        child = fork.Process(target=run_in_child, args=(self, config, memory))
        gc.freeze()  # garbage collection in the child would copy the memory of all imports
        child.start()
        gc.unfreeze()
        wait_for_child(child, self.directory)
        if child.exitcode:
            mark_failed(get_run_directory(), describe_exit(child.exitcode))
        if is_orphaned():
            os._exit(1)  # the launcher, which would end this process, is gone
        return read_outcome(memory) or JobOutcome(describe_exit(child.exitcode or 0))


@cache
def import_run_modules() -> None:
    log_python_warnings()
    import torchvision  # noqa: F401  # also imports torch's compiler

    import microstep.training.resume  # noqa: F401  # imports the other modules
    from microstep.utils.plotting import new_figure, png_bytes

    figure = new_figure(1, 1)
    figure.add_subplot()
    png_bytes(figure)  # the first image searches the fonts


def ignore_group_signals() -> None:
    """Ignore signals to the process group, which the sweep handles. Keep handlers that the launcher has installed."""
    for number in signals.STOP_SIGNALS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, signal.SIG_IGN)


def run_in_child(worker: Worker, config: DictConfig, memory: mmap) -> None:
    os.setpgid(0, 0)  # Ctrl-C does not reach it
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
    signals.install_signal_handlers()
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # submitit uses it to queue the job again, and then sends SIGTERM
    from microstep.components.dataset.loader_processes import stop_workers  # imports torch

    with silenced() as warnings:
        try:
            if worker.gpus and config.device in ("auto", "cuda"):
                claim_gpus(worker.gpus, worker.directory, real_processes(config))
            error = worker.function(config)
        except Stopped:
            error = None  # recorded in run.json
        except (OSError, StorageError) as failure:  # no GPU could be claimed
            error = format_error(failure)
        finally:
            stop_workers()  # this process runs no atexit handlers
        memory.write(pickle.dumps(JobOutcome.of(error, warnings)))


def read_outcome(memory: mmap) -> JobOutcome | None:
    """Return the outcome that a child has written; None if it died before or while it wrote it."""
    with suppress(pickle.UnpicklingError):
        outcome = pickle.loads(memory)
        assert isinstance(outcome, JobOutcome)
        return outcome
    return None


def wait_for_child(child: ForkProcess, sweep: Path) -> None:
    signal_sent = False
    while child.is_alive():
        child.join(CHILD_POLL_SECONDS)
        signum = find_stop_signal(sweep)
        if signum is not None and not signal_sent and child.pid:
            with suppress(ProcessLookupError):
                os.kill(child.pid, signum)
            signal_sent = True


def is_orphaned() -> bool:
    return os.getppid() != LAUNCHER_PID


def find_stop_signal(sweep: Path) -> int | None:
    """Return the signal that stopped a sweep, or SIGTERM if this process is orphaned; None if neither is the case."""
    if is_orphaned():
        return signal.SIGTERM
    with suppress(OSError, ValueError):
        return int((sweep / STOP_FILE).read_text())
    return None
