"""Reading ahead: loader processes that decode and augment what will be asked for, in the order it will be.

They are processes of torch's DataLoader. What they are asked for says everything (rows, positions, key), so it makes
no difference how many there are, or whether they have worked before.
"""

from __future__ import annotations

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
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, _utils

from microstep.components.augment import Pipeline
from microstep.components.dataset.images import ImageSource
from microstep.errors import MicrostepError
from microstep.utils.signals import STOP_SIGNALS

MAX_WORKERS = 8  #: processes that are started where nobody says how many
WORKER_TIMEOUT = 300.0  #: seconds that a worker may take for one batch
SHUTDOWN_TIMEOUT = 0.5  #: seconds that a worker may take to end


@dataclass(frozen=True)
class WorkerAugmentation:
    """What is done to pictures on the way: see Pipeline."""

    pipeline: Pipeline
    key: tuple[int, ...]
    fill: Sequence[int]

    def __call__(self, images: Tensor, positions: Sequence[int]) -> Tensor:
        """Return the pictures (N × C × H × W, uint8) as they are trained on."""
        where, size = torch.tensor(positions, dtype=torch.int64), (images.shape[2], images.shape[3])
        plan = self.pipeline.plan(where, size, *self.key)
        return self.pipeline.single(images, plan, self.fill)


@dataclass(frozen=True, eq=False)
class ReadRequest:
    """Some rows of a split, plain enough to be sent to another process."""

    split: str
    rows: Sequence[int]
    positions: Sequence[int] = ()
    augmenting: WorkerAugmentation | None = None


class ImageReader(Dataset[Any]):
    """Reads what is wanted; what a file is to blame for is returned, not raised: it has to cross a process border."""

    def __init__(self, sources: Mapping[str, ImageSource]) -> None:
        self.pictures = sources

    def __getitem__(self, request: ReadRequest) -> Tensor | MicrostepError:
        try:
            images = torch.from_numpy(self.pictures[request.split].read(request.rows))
        except MicrostepError as error:
            return error
        return images if request.augmenting is None else request.augmenting(images, request.positions)


class WorkerPool:
    """The processes of a data set, shared by its splits: one of them is read at a time.

    Args:
        sources: by split.
        count: processes; 0 reads in this one, when asked.
        timeout: seconds to wait for a batch.
    """

    def __init__(self, sources: Mapping[str, ImageSource], count: int, timeout: float = WORKER_TIMEOUT) -> None:
        self.reader, self.count, self.timeout = ImageReader(sources), count, timeout
        self.plan = RequestSampler()
        self.loader: DataLoader[Any] | None = None
        self.ahead: deque[ReadRequest] = deque()
        self.read: Iterator[Tensor | MicrostepError] = iter(())

    def expect(self, requests: Sequence[ReadRequest]) -> None:
        """Begin to read; `take` will be asked for the same, in this order."""
        self.ahead, self.read = deque(requests), self.stream(requests)

    def take(self, request: ReadRequest) -> Tensor:
        """Return the pictures (N × C × H × W, uint8); what was not expected next is read here and now.

        Raises:
            DataError: naming a file that can't be read.
        """
        if self.ahead and request is self.ahead[0]:
            self.ahead.popleft()
            found = next(self.read)
        else:
            found = self.reader[request]
        if isinstance(found, MicrostepError):
            raise found
        return found

    def stream(self, requests: Sequence[ReadRequest]) -> Iterator[Tensor | MicrostepError]:
        """Yield what is wanted, in order: pictures, or why they can't be read."""
        if not self.count:
            return map(self.reader.__getitem__, requests)
        self.plan.wanted = requests
        if self.loader is None:
            self.loader = make_loader(self.reader, self.plan, self.count, self.timeout)
            with block_stop_signals():
                first: Any = iter(self.loader)  # torch has no public way to end persistent workers
            atexit.register(stop_workers, weakref.ref(first), first._workers)
            return cast(Iterator[Any], first)
        return iter(self.loader)

    def close(self) -> None:
        """End the processes; they would be started again if they were needed."""
        self.read, self.loader = iter(()), None  # torch ends the processes of a loader that nobody holds


class RequestSampler:
    """What the workers read next, as a sampler that is told anew before each pass."""

    wanted: Sequence[ReadRequest] = ()

    def __iter__(self) -> Iterator[ReadRequest]:
        return iter(self.wanted)


def make_loader(reader: ImageReader, plan: RequestSampler, count: int, timeout: float) -> DataLoader[Any]:
    """Return a loader whose processes live on from one pass to the next."""
    return DataLoader(
        reader,
        sampler=plan,  # whatever it yields is handed to the reader
        batch_size=None,
        num_workers=count,
        collate_fn=collate_unchanged,
        timeout=timeout,
        persistent_workers=True,
        generator=torch.Generator(),  # it draws a number a pass: not from the model's generator
    )


def stop_workers(iterator: weakref.ref[Any], processes: Sequence[BaseProcess]) -> None:
    """End a loader's processes before this one exits.

    Python would send them SIGTERM, which doesn't reach them, and wait for ever. They are asked, and then killed.
    """
    _utils.MP_STATUS_CHECK_INTERVAL = SHUTDOWN_TIMEOUT
    alive = iterator()
    if alive is not None:
        alive._shutdown_workers()
    for process in processes:
        process.kill()


def collate_unchanged(item: Any) -> Any:
    return item


@contextmanager
def block_stop_signals() -> Iterator[None]:
    """Block the signals that a terminal or a scheduler sends to the whole group: the trainer decides.

    Processes started meanwhile inherit that, and so are out of their reach from the first moment.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def worker_count(requested: int | None) -> int:
    """Return how many processes: as asked, or one a core that this process may use, at most MOST."""
    if requested is not None:
        return requested
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MAX_WORKERS, cores)


def ignore_sigchld() -> None:
    """Let nothing more be raised out of torch's signal handler while one death is dealt with; the next pool sets it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _utils.signal_handling._SIGCHLD_handler_set = False


@contextmanager
def loader_errors() -> Iterator[None]:
    """Say in one line why loader processes gave up; torch raises that wherever this process happens to be.

    Raises:
        MicrostepError: for a worker that died or took too long.
    """
    try:
        yield
    except RuntimeError as error:
        text = " ".join(str(error).split())
        if "DataLoader timed out" in text:
            reason = f"a loader process gave nothing for {re.findall(r'[0-9.]+', text)[0]} seconds"
            remedy = "the disk may hang; num_workers=0 reads in this process"
            raise MicrostepError("num_workers", reason, remedy) from None
        if "DataLoader worker" in text:
            ignore_sigchld()
            died = re.search(r"killed by signal: [\w ]+|exited unexpectedly", text)
            reason = f"a loader process died ({died[0] if died else text})"
            remedy = "most likely memory ran out, or /dev/shm: choose fewer num_workers, or a smaller batch_size"
            raise MicrostepError("num_workers", reason, remedy) from None
        raise
