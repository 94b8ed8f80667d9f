"""Processes of torch's DataLoader: starting and ending them, and their errors in one line."""

import atexit
import re
import signal
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from multiprocessing.util import get_temp_dir
from resource import RLIMIT_NOFILE, getrlimit
from traceback import clear_frames
from typing import Any

import torch
from torch._C import _remove_worker_pids
from torch.utils.data import DataLoader, Dataset, _utils
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from microstep.errors import MicrostepError
from microstep.utils.signals import STOP_SIGNALS

SHUTDOWN_TIMEOUT = 0.5  #: seconds that a worker may take to end
ITERATORS: weakref.WeakSet[Any] = weakref.WeakSet()  #: torch's, of loaders whose processes may run
PROCESSES: weakref.WeakSet[BaseProcess] = weakref.WeakSet()  #: of loaders; Python itself keeps those that run


def start_loader(reader: Dataset[Any], requests: list[Any], count: int, timeout: float) -> DataLoader[Any]:
    """Return a DataLoader whose processes live from one pass to the next. The first pass is its `_iterator`.

    Each pass reads the requests anew. The sampler passes each of them to the reader.
    """
    generator = torch.Generator()  # draws a number per pass, which must not come from the global generator
    workers: dict[str, Any] = {"num_workers": count, "timeout": timeout, "persistent_workers": True}
    loader = DataLoader(reader, batch_size=None, sampler=requests, generator=generator, **workers)
    with block_stop_signals():
        loader._iterator = iterator = LoaderIterator(loader)
    ITERATORS.add(iterator)
    PROCESSES.update(iterator._workers)
    return loader


class LoaderIterator(_MultiProcessingDataLoaderIter):
    """Iterator of a DataLoader. If a process can't be started, it ends the others and raises a MicrostepError."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._workers, self._worker_pids_set = list[Any](), False
        get_temp_dir()  # the processes use it and don't have to remove one of their own
        try:
            super().__init__(loader)
        except (OSError, RuntimeError) as error:
            if self._worker_pids_set:
                _remove_worker_pids(id(self))  # or their end would raise an error
            for process in self._workers:
                process.kill()  # SIGTERM is blocked
                process.join()
            clear_frames(error.__traceback__)  # closes the pipes, so that the run can be recorded
            self.__dict__ = {"_shutdown": True}  # there is nothing left for torch to end
            raise shortage_error(f"num_workers={loader.num_workers}", str(error)) from None


@contextmanager
def block_stop_signals() -> Iterator[None]:
    """Block the signals that a terminal or a scheduler sends to the whole process group.

    Processes that are started in the block inherit this, so only the trainer reacts to such a signal.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@atexit.register
def stop_workers() -> None:
    """End all loader processes of this process; kill those that do not end in time.

    At exit, Python would send them SIGTERM, which they block, and wait without limit. If garbage collection ends them,
    it may close their pipes too early, and torch waits for them in vain.
    """
    _utils.MP_STATUS_CHECK_INTERVAL = SHUTDOWN_TIMEOUT
    for iterator in list(ITERATORS):
        iterator._shutdown_workers()
    for process in list(PROCESSES):
        process.kill()


@contextmanager
def loader_errors() -> Iterator[None]:
    """Turn the RuntimeError that torch raises if a worker dies or takes too long into a one-line MicrostepError."""
    try:
        yield
    except RuntimeError as error:
        text = " ".join(str(error).split())
        if "DataLoader timed out" in text:
            reason = f"a loader process gave nothing for {re.findall(r'[0-9.]+', text)[0]} seconds"
            remedy = "the disk may hang; num_workers=0 reads in this process"
            raise MicrostepError("num_workers", reason, remedy) from None
        if "Communication with the workers" in text or "shared memory" in text:
            raise shortage_error("num_workers", text) from None
        if "DataLoader worker" in text:
            death = re.search(r"killed by signal: [\w ]+|exited unexpectedly", text)
            raise death_error(death[0] if death else text) from None
        raise


def death_error(sign: str) -> MicrostepError:
    """Return the error of a loader process that died. Later deaths then raise no further errors."""
    ignore_child_signals()
    reason = f"a loader process died ({sign})"
    remedy = "most likely memory ran out, or /dev/shm: choose fewer num_workers, or a smaller batch_size"
    return MicrostepError("num_workers", reason, remedy)


def shortage_error(subject: str, text: str) -> MicrostepError:
    """Return the error of loader processes that lack what a message of the system says."""
    limits = {
        "Too many open files": f"raise the limit of {getrlimit(RLIMIT_NOFILE)[0]} open files (ulimit -n)",
        "Resource temporarily unavailable": "raise the limit of processes (ulimit -u)",
        "No space left on device": "make room in /dev/shm",
        "Read-only file system": "make /dev/shm writable",
    }
    lack = next((lack for lack in limits if lack in text), text)
    remedy = limits.get(lack, "check the limits (ulimit -a) and /dev/shm")
    reason = f"a loader process can't be started or send its images ({lack})"
    return MicrostepError(subject, reason, f"choose fewer num_workers (0 needs none of it), or {remedy}")


def ignore_child_signals() -> None:
    """Remove torch's SIGCHLD handler, so that other deaths raise no further errors. The next loader installs it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _utils.signal_handling._SIGCHLD_handler_set = False
