"""Worker processes that read and augment images ahead, in the order in which they will be needed.

They are the processes of a DataLoader of torch. A request holds everything that determines its result (rows, positions,
key), so the result depends neither on the number of processes nor on earlier requests.
"""

import atexit
import os
import re
import signal
import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.util import get_temp_dir
from resource import RLIMIT_NOFILE, getrlimit
from traceback import clear_frames
from typing import Any, cast

import torch
from torch import Tensor
from torch._C import _remove_worker_pids
from torch.utils.data import DataLoader, Dataset, _utils, get_worker_info
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from microstep.components.augment import Pipeline
from microstep.components.dataset.images import ImageSource
from microstep.errors import MicrostepError
from microstep.utils.signals import STOP_SIGNALS

MAX_WORKERS = 8  #: most processes that are started by default
WORKER_TIMEOUT = 300.0  #: seconds that a worker may take for one batch
SHUTDOWN_TIMEOUT = 0.5  #: seconds that a worker may take to end
ITERATORS: weakref.WeakSet[Any] = weakref.WeakSet()  #: torch's, of loaders whose processes may run
PROCESSES: weakref.WeakSet[BaseProcess] = weakref.WeakSet()  #: of loaders; Python itself keeps those that run


@dataclass(frozen=True)
class WorkerAugmentation:
    """Augments images in a worker process."""

    pipeline: Pipeline
    key: tuple[int, ...]  #: seed and epoch
    fill_color: Sequence[int]  #: per channel, as pixel values

    def __call__(self, images: Tensor, positions: Sequence[int]) -> Tensor:
        """Return the images (N × C × H × W, uint8) at these positions of the epoch, augmented."""
        size = images.shape[2], images.shape[3]
        plan = self.pipeline.plan(torch.tensor(positions, dtype=torch.int64), size, *self.key)
        return self.pipeline.single(images, plan, self.fill_color)


@dataclass(frozen=True, eq=False)
class ReadRequest:
    """Request to read some rows of a split, which can be sent to another process."""

    split: str
    rows: Sequence[int]
    positions: Sequence[int] = ()  #: of the rows in the epoch's order, for the augmentation
    augmentation: WorkerAugmentation | None = None


class ImageReader(Dataset[Any]):
    """Reads the images of a request. Returns errors instead of raising them, so that they reach the main process."""

    def __init__(self, sources: Mapping[str, ImageSource]) -> None:
        self.sources = sources

    def __getitem__(self, request: ReadRequest) -> Tensor | MicrostepError:
        try:
            images = torch.from_numpy(self.sources[request.split].read(request.rows))
        except MicrostepError as error:
            return error
        if request.augmentation is not None:
            images = request.augmentation(images, request.positions)
        # torch would move it in a thread, where an error is lost
        return images if get_worker_info() is None else images.share_memory_()  # type: ignore[no-untyped-call]


class WorkerPool:
    """Worker processes of a data set. Its splits share them and are read one at a time.

    A `count` of 0 reads in this process. The timeout is in seconds per batch.
    """

    def __init__(self, sources: Mapping[str, ImageSource], count: int, timeout: float = WORKER_TIMEOUT) -> None:
        self.reader, self.count, self.timeout = ImageReader(sources), count, timeout
        self.requests: list[ReadRequest] = []  #: of the current pass of the loader
        self.loader: DataLoader[Any] | None = None
        self.expected: deque[ReadRequest] = deque()
        self.results: Iterator[Tensor | MicrostepError] = iter(())

    def expect(self, requests: Sequence[ReadRequest]) -> None:
        """Start to read these requests; call `take_batch` with the same objects in the same order."""
        self.expected, self.results = deque(requests), self.stream(requests)

    def take_batch(self, request: ReadRequest) -> Tensor:
        """Return the images of a request (N × C × H × W, uint8), read in this process if it was not expected next."""
        if self.expected and request is self.expected[0]:
            self.expected.popleft()
            result = next(self.results)
        else:
            result = self.reader[request]
        if isinstance(result, MicrostepError):
            raise result
        return result

    def stream(self, requests: Sequence[ReadRequest]) -> Iterator[Tensor | MicrostepError]:
        """Yield the images of each request, or the error that prevents reading them, in order."""
        if not self.count:
            return map(self.reader.__getitem__, requests)
        self.requests[:] = requests
        if self.loader is not None:
            return iter(self.loader)
        loader = make_loader(self.reader, self.requests, self.count, self.timeout)
        with block_stop_signals():
            loader._iterator = iterator = LoaderIterator(loader)  # for this pass and the next ones
        self.loader = loader
        ITERATORS.add(iterator)
        PROCESSES.update(iterator._workers)
        return cast(Iterator[Any], iterator)

    def close(self) -> None:
        """End the processes. The next request starts new ones."""
        self.results, self.loader = iter(()), None  # torch ends the processes with the last reference to the loader


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


def make_loader(reader: ImageReader, requests: list[ReadRequest], count: int, timeout: float) -> DataLoader[Any]:
    """Return a DataLoader whose processes live from one pass to the next. Each pass reads the requests anew."""
    generator = torch.Generator()  # draws a number per pass, which must not come from the global generator
    workers: dict[str, Any] = {"num_workers": count, "timeout": timeout, "persistent_workers": True}
    # the sampler passes each request to the reader
    return DataLoader(reader, batch_size=None, sampler=requests, generator=generator, **workers)


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
def block_stop_signals() -> Iterator[None]:
    """Block the signals that a terminal or a scheduler sends to the whole process group.

    Processes that are started in the block inherit this, so only the trainer reacts to such a signal.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def worker_count(requested: int | None) -> int:
    """Return the requested number of processes, or by default one per available core, at most `MAX_WORKERS`."""
    if requested is not None:
        return requested
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MAX_WORKERS, cores)


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
            ignore_child_signals()
            death = re.search(r"killed by signal: [\w ]+|exited unexpectedly", text)
            reason = f"a loader process died ({death[0] if death else text})"
            remedy = "most likely memory ran out, or /dev/shm: choose fewer num_workers, or a smaller batch_size"
            raise MicrostepError("num_workers", reason, remedy) from None
        raise


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
