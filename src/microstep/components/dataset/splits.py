"""Splits of an image data set: resident on the device, or streamed from files by worker processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from copy import copy

import torch
from torch import Tensor

from microstep.components.augment import Pipeline
from microstep.components.dataset.images import ImageSource, get_filenames
from microstep.components.dataset.normalization import Normalizer
from microstep.components.dataset.workers import ReadRequest, WorkerAugmentation, WorkerPool
from microstep.types.data import Batch, FetchRequest


class ResidentSplit:
    """Split whose images are all in the memory of the device.

    Args:
        images: N × C × H × W, uint8, on the CPU.
        indices: N, int64: index of each sample in its official split.
        files: Path of each sample, or None if the samples have no files.
    """

    def __init__(
        self,
        images: Tensor,
        targets: Tensor,
        indices: Tensor,
        normalizer: Normalizer,
        device: torch.device,
        files: Sequence[str] | None = None,
    ) -> None:
        self.files = files
        self.targets, self.indices, self.normalizer, self.device = targets, indices, normalizer, device
        self.size = (images.shape[2], images.shape[3])
        self.images, self.device_targets, self.device_indices = (x.to(device) for x in (images, targets, indices))
        self.augmentation: Callable[[Tensor, Tensor], Tensor] | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def fetch(self, rows: Tensor, positions: Tensor) -> Batch:
        images = self.images.index_select(0, rows)
        if self.augmentation is not None:
            images = self.augmentation(images, positions)
        targets, indices = self.device_targets.index_select(0, rows), self.device_indices.index_select(0, rows)
        return Batch(self.normalizer(images), targets, positions, indices)

    def expect(self, requests: Sequence[FetchRequest]) -> None:
        """Do nothing: all images are in memory."""

    def to_images(self, inputs: Tensor) -> Tensor:
        return self.normalizer.invert(inputs)

    def augmented(self, pipeline: Pipeline, *key: int, samples: int) -> ResidentSplit:
        """Return a view of the split, augmented for one epoch. The parameters of all positions are drawn at once."""
        plan = [p.to(self.device) for p in pipeline.plan(torch.arange(samples), self.size, *key)]
        fill = torch.tensor(self.normalizer.fill_color, dtype=torch.uint8, device=self.device)
        view = copy(self)
        view.augmentation = lambda images, positions: pipeline.apply(
            images, [parameters.index_select(0, positions) for parameters in plan], fill
        )
        return view


class StreamingSplit:
    """Split whose images are read when they are needed, sent to the device as uint8, and normalized there.

    `name` is the key of the split in `workers`.
    """

    def __init__(
        self, name: str, source: ImageSource, workers: WorkerPool, normalizer: Normalizer, device: torch.device
    ) -> None:
        self.name, self.workers, self.normalizer, self.device = name, workers, normalizer, device
        self.targets, self.indices = torch.from_numpy(source.labels), torch.from_numpy(source.published_indices)
        self.size, self.files = source.shape[1:], get_filenames(source)
        self.augmentation: WorkerAugmentation | None = None
        #: by id of the rows, which are stored to keep that id in use
        self.expected_requests: dict[int, tuple[Tensor, ReadRequest]] = {}
        self.fetches_left = Counter[ReadRequest]()  #: of each expected request
        self.kept: dict[ReadRequest, Tensor] = {}  #: images that will be fetched again

    def __len__(self) -> int:
        return len(self.targets)

    def fetch(self, rows: Tensor, positions: Tensor) -> Batch:
        """Return the batch of these rows, read in this process if `expect` did not announce it as the next one."""
        expected = self.expected_requests.get(id(rows))
        request = self.make_request(rows, positions) if expected is None else expected[1]
        images = self.take_images(request).to(self.device, non_blocking=True)
        cpu_rows = torch.tensor(request.rows, dtype=torch.int64)
        targets, indices = (values[cpu_rows].to(self.device) for values in (self.targets, self.indices))
        normalize = self.normalizer.in_one_thread if images.device.type == "cpu" else self.normalizer
        return Batch(normalize(images), targets, positions, indices)

    def take_images(self, request: ReadRequest) -> Tensor:
        """Return the images of a request; keep them in memory if it was announced once more."""
        images = self.kept.pop(request) if request in self.kept else self.workers.take_batch(request)
        if self.fetches_left[request] > 1:
            self.fetches_left[request] -= 1
            self.kept[request] = images.clone()  # a tensor of another process holds a file descriptor
        return images

    def expect(self, requests: Sequence[FetchRequest]) -> None:
        reads = {id(rows): self.make_request(rows, positions) for rows, positions in requests}
        self.expected_requests = {id(rows): (rows, reads[id(rows)]) for rows, _ in requests}
        self.fetches_left, self.kept = Counter(reads[id(rows)] for rows, _ in requests), {}
        self.workers.expect(list(reads.values()))

    def make_request(self, rows: Tensor, positions: Tensor) -> ReadRequest:
        return ReadRequest(self.name, rows.tolist(), positions.tolist(), self.augmentation)

    def to_images(self, inputs: Tensor) -> Tensor:
        return self.normalizer.invert(inputs)

    def augmented(self, pipeline: Pipeline, *key: int, samples: int) -> StreamingSplit:
        view = copy(self)
        view.augmentation = WorkerAugmentation(pipeline, key, self.normalizer.fill_color)
        return view
