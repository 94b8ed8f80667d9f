"""The resident backend: a whole split as one uint8 tensor on the device, batches as batched tensor operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from microstep.types import Batch, Split


class ResidentSplit:
    """One split of pictures on the device.

    Args:
        images: N × C × H × W, uint8, on the CPU.
        targets: N, int64, on the CPU.
        indices: N, int64: each sample's place in its official split.
        scale: the pixel value that means 1.0.
        mean, std: per channel, of pixels over `scale`; what a batch's inputs are normalised by.
        device: where batches come from.
    """

    def __init__(
        self,
        images: Tensor,
        targets: Tensor,
        indices: Tensor,
        scale: float,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
    ) -> None:
        self.targets, self.indices = targets, indices
        self.scale, self.device = scale, device
        self.images, self.labels, self.places = images.to(device), targets.to(device), indices.to(device)
        # One multiply-add on whole numbers: (x / scale − mean) / std.
        self.factor = per_channel([1 / (scale * s) for s in std], device)
        self.offset = per_channel([-m / s for m, s in zip(mean, std, strict=True)], device)

    def __len__(self) -> int:
        return len(self.targets)

    def fetch(self, rows: Tensor, positions: Tensor) -> Batch:
        """Return these rows, normalised, as float32 inputs."""
        images = self.images.index_select(0, rows).float()
        inputs = torch.addcmul(self.offset, images, self.factor)
        return Batch(inputs, self.labels.index_select(0, rows), positions, self.places.index_select(0, rows))

    def pixels(self, rows: Sequence[int]) -> Tensor:
        """Return these rows as they were read: uint8, on the CPU."""
        return self.images[list(rows)].cpu()

    def pictures(self, rows: Sequence[int]) -> Tensor:
        """Return these rows as images in 0…1, on the CPU."""
        return self.pixels(rows).float() / self.scale


def per_channel(values: Sequence[float], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1)


@dataclass(frozen=True)
class ResidentDataset:
    """Splits, with what the data say of themselves."""

    splits: Mapping[str, Split]
    facts: Mapping[str, Any]
    fingerprint: str
    summary: str
