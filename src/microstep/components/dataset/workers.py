"""Worker processes that read and augment images ahead, in the order in which they will be needed.

They are the processes of a DataLoader of torch. A request holds everything that determines its result (rows, positions,
key), so the result depends neither on the number of processes nor on earlier requests.
"""

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from microstep.components.augment import Pipeline
from microstep.components.dataset.images import ImageSource
from microstep.components.dataset.loader_processes import death_error, start_loader
from microstep.errors import MicrostepError

MAX_WORKERS = 8  #: most processes that are started by default
WORKER_TIMEOUT = 300.0  #: seconds that a worker may take for one batch


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
        return self.pipeline.apply(images, plan, torch.tensor(self.fill_color, dtype=torch.uint8))


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
            if request.augmentation is not None:
                images = request.augmentation(images, request.positions)
        except MicrostepError as error:
            return error
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
            result = self.next_result()
        else:
            result = self.reader[request]
        if isinstance(result, MicrostepError):
            raise result
        return result

    def next_result(self) -> Tensor | MicrostepError:
        """Return the next result of the processes. Raises a MicrostepError if one died while it sent its images."""
        try:
            return next(self.results)
        except (ConnectionError, EOFError) as error:
            raise death_error(str(error) or "its connection ended") from None

    def stream(self, requests: Sequence[ReadRequest]) -> Iterator[Tensor | MicrostepError]:
        """Yield the images of each request, or the error that prevents reading them, in order."""
        if not self.count:
            return map(self.reader.__getitem__, requests)
        self.requests[:] = requests
        if self.loader is not None:
            return iter(self.loader)
        self.loader = start_loader(self.reader, self.requests, self.count, self.timeout)
        return cast(Iterator[Any], self.loader._iterator)

    def close(self) -> None:
        """End the processes. The next request starts new ones."""
        self.results, self.loader = iter(()), None  # torch ends the processes with the last reference to the loader


def worker_count(requested: int | None) -> int:
    """Return the requested number of processes, or by default one per available core, at most `MAX_WORKERS`."""
    if requested is not None:
        return requested
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MAX_WORKERS, cores)
