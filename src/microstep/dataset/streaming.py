"""The streaming backend: pictures are read when they are due, by loader processes ahead of that."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import torch
from torch import Tensor

from microstep.augment import Pipeline
from microstep.dataset.normaliser import Normaliser
from microstep.dataset.pictures import Pictures, files_of
from microstep.dataset.workers import Augmenting, Wanted, Workers
from microstep.types.data import Batch, Request


class StreamingSplit:
    """One split of pictures wherever they are; bytes go to the device, and are normalised there.

    Args:
        name: by which `workers` know the pictures.
        pictures: the split's.
        workers: read ahead.
        normaliser: makes inputs of bytes.
        device: where batches come to.
    """

    def __init__(
        self, name: str, pictures: Pictures, workers: Workers, normaliser: Normaliser, device: torch.device
    ) -> None:
        self.name, self.workers, self.normaliser, self.device = name, workers, normaliser, device
        self.targets, self.indices = torch.from_numpy(pictures.labels), torch.from_numpy(pictures.places)
        self.size, self.files = pictures.shape[1:], files_of(pictures)
        self.augmenting: Augmenting | None = None
        self.expected: dict[int, tuple[Tensor, Wanted]] = {}  #: by identity of the rows, which are kept alive for that

    def __len__(self) -> int:
        return len(self.targets)

    def fetch(self, rows: Tensor, positions: Tensor) -> Batch:
        """Return these rows, normalised, as float32 inputs; what was not expected next is read here and now."""
        expected = self.expected.pop(id(rows), None)
        wanted = self.wanted(rows, positions) if expected is None else expected[1]
        images = self.workers.take(wanted).to(self.device, non_blocking=True)
        chosen = torch.tensor(wanted.rows, dtype=torch.int64)
        labels, places = (values[chosen].to(self.device) for values in (self.targets, self.indices))
        return Batch(self.normaliser(images), labels, positions, places)

    def expect(self, requests: Sequence[Request]) -> None:
        """Let the workers begin."""
        wanted = [self.wanted(*request) for request in requests]
        self.expected = {id(rows): (rows, one) for (rows, _), one in zip(requests, wanted, strict=True)}
        self.workers.expect(wanted)

    def wanted(self, rows: Tensor, positions: Tensor) -> Wanted:
        """Return what to ask a worker for."""
        return Wanted(self.name, rows.tolist(), positions.tolist(), self.augmenting)

    def shown(self, inputs: Tensor) -> Tensor:
        """Return inputs as images in 0…1, on the CPU."""
        return self.normaliser.undone(inputs)

    def augmented(self, pipeline: Pipeline, *key: int) -> StreamingSplit:
        """Return the split as an epoch sees it."""
        view = copy(self)
        view.augmenting = Augmenting(pipeline, key, self.normaliser.fill)
        return view
