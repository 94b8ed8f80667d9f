"""The resident backend: a whole split as one uint8 tensor on the device, batches as batched tensor operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy

import torch
from torch import Tensor

from microstep.augment import Pipeline
from microstep.dataset.normaliser import Normaliser
from microstep.errors import ConfigError
from microstep.types.data import Batch, Request


class ResidentSplit:
    """One split of pictures on the device.

    Args:
        images: N × C × H × W, uint8, on the CPU.
        targets: N, int64, on the CPU.
        indices: N, int64: each sample's place in its official split.
        normaliser: makes inputs of bytes.
        device: where batches come from.
        files: the samples', where they are some.
    """

    def __init__(
        self,
        images: Tensor,
        targets: Tensor,
        indices: Tensor,
        normaliser: Normaliser,
        device: torch.device,
        files: Sequence[str] | None = None,
    ) -> None:
        self.files = files
        self.targets, self.indices, self.normaliser, self.device = targets, indices, normaliser, device
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
        labels, places = self.labels.index_select(0, rows), self.places.index_select(0, rows)
        return Batch(self.normaliser(images), labels, positions, places)

    def expect(self, requests: Sequence[Request]) -> None:
        """Everything is here already."""

    def shown(self, inputs: Tensor) -> Tensor:
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
