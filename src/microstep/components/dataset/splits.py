"""Splits of a data set: resident on the device, or streamed from files by worker processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy

import torch
from torch import Tensor

from microstep.components.augment import Pipeline
from microstep.components.dataset.images import ImageSource, get_filenames
from microstep.components.dataset.normalization import Normalizer
from microstep.components.dataset.workers import ReadRequest, WorkerAugmentation, WorkerPool
from microstep.errors import ConfigError
from microstep.types.data import Batch, FetchRequest


class ResidentSplit:
    """One split of pictures on the device.

    Args:
        images: N × C × H × W, uint8, on the CPU.
        targets: N, int64, on the CPU.
        indices: N, int64: each sample's place in its official split.
        normalizer: makes inputs of bytes.
        device: where batches come from.
        files: the samples', where they are some.
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
        self.targets, self.indices, self.normaliser, self.device = targets, indices, normalizer, device
        self.size = (images.shape[2], images.shape[3])
        self.images, self.labels, self.places = images.to(device), targets.to(device), indices.to(device)
        self.augmenting: Callable[[Tensor, Tensor], Tensor] | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def fetch(self, rows: Tensor, positions: Tensor) -> Batch:
        """Return these rows, normalised, as float32 inputs."""
        images = self.images.index_select(0, rows)
        if self.augmenting is not None:
            images = self.augmenting(images, positions)
        labels, indices = self.labels.index_select(0, rows), self.places.index_select(0, rows)
        return Batch(self.normaliser(images), labels, positions, indices)

    def expect(self, requests: Sequence[FetchRequest]) -> None:
        """Everything is here already."""

    def to_images(self, inputs: Tensor) -> Tensor:
        """Return inputs as images in 0…1, on the CPU."""
        return self.normaliser.undone(inputs)

    def augmented(self, pipeline: Pipeline, *key: int) -> ResidentSplit:
        """Return the split as an epoch sees it; the parameters of all its positions are drawn at once.

        Raises:
            ConfigError: where an operation exists for streamed pictures only.
        """
        if not pipeline.resident:
            raise ConfigError("augment", "it is for streamed pictures only", "add dataset.resident=false")
        plan = [p.to(self.device) for p in pipeline.plan(torch.arange(len(self)), self.size, *key)]
        fill = torch.tensor(self.normaliser.fill, dtype=torch.uint8, device=self.device)
        view = copy(self)
        view.augmenting = lambda images, positions: pipeline.batched(
            images, [parameters.index_select(0, positions) for parameters in plan], fill
        )
        return view


class StreamingSplit:
    """One split of pictures wherever they are; bytes go to the device, and are normalised there.

    Args:
        name: by which `workers` know the pictures.
        source: the split's.
        workers: read ahead.
        normalizer: makes inputs of bytes.
        device: where batches come to.
    """

    def __init__(
        self, name: str, source: ImageSource, workers: WorkerPool, normalizer: Normalizer, device: torch.device
    ) -> None:
        self.name, self.workers, self.normaliser, self.device = name, workers, normalizer, device
        self.targets, self.indices = torch.from_numpy(source.labels), torch.from_numpy(source.places)
        self.size, self.files = source.shape[1:], get_filenames(source)
        self.augmenting: WorkerAugmentation | None = None
        self.expected: dict[
            int, tuple[Tensor, ReadRequest]
        ] = {}  #: by identity of the rows, which are kept alive for that

    def __len__(self) -> int:
        return len(self.targets)

    def fetch(self, rows: Tensor, positions: Tensor) -> Batch:
        """Return these rows, normalised, as float32 inputs; what was not expected next is read here and now."""
        expected = self.expected.pop(id(rows), None)
        wanted = self.wanted(rows, positions) if expected is None else expected[1]
        images = self.workers.take(wanted).to(self.device, non_blocking=True)
        chosen = torch.tensor(wanted.rows, dtype=torch.int64)
        labels, indices = (values[chosen].to(self.device) for values in (self.targets, self.indices))
        return Batch(self.normaliser(images), labels, positions, indices)

    def expect(self, requests: Sequence[FetchRequest]) -> None:
        """Let the workers begin."""
        wanted = [self.wanted(*request) for request in requests]
        self.expected = {id(rows): (rows, one) for (rows, _), one in zip(requests, wanted, strict=True)}
        self.workers.expect(wanted)

    def wanted(self, rows: Tensor, positions: Tensor) -> ReadRequest:
        """Return what to ask a worker for."""
        return ReadRequest(self.name, rows.tolist(), positions.tolist(), self.augmenting)

    def to_images(self, inputs: Tensor) -> Tensor:
        """Return inputs as images in 0…1, on the CPU."""
        return self.normaliser.undone(inputs)

    def augmented(self, pipeline: Pipeline, *key: int) -> StreamingSplit:
        """Return the split as an epoch sees it."""
        view = copy(self)
        view.augmenting = WorkerAugmentation(pipeline, key, self.normaliser.fill)
        return view
