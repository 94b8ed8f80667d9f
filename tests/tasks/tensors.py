"""Dataset of plain tensors that implements the protocols `Split` and `Dataset`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from microstep.types.data import Batch, FetchRequest


@dataclass
class TensorSplit:
    inputs: Tensor
    targets: Tensor
    indices: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def fetch(self, rows: Tensor, positions: Tensor) -> Batch:
        return Batch(self.inputs[rows], self.targets[rows], positions, self.indices[rows])

    def expect(self, requests: Sequence[FetchRequest]) -> None:
        """Everything is here already."""

    def to_images(self, inputs: Tensor) -> None:
        """These are no pictures."""


@dataclass
class TensorDataset:
    splits: dict[str, TensorSplit]
    facts: dict[str, object]
    fingerprint: str
    summary: str


def split_in_three(inputs: Tensor, targets: Tensor, facts: dict[str, object], name: str) -> TensorDataset:
    """Return every fifth sample as validation, every fifth as test."""
    rows = torch.arange(len(targets))
    picked = {"train": rows[rows % 5 > 1], "val": rows[rows % 5 == 0], "test": rows[rows % 5 == 1]}
    splits = {part: TensorSplit(inputs[r], targets[r], r) for part, r in picked.items()}
    return TensorDataset(splits, facts, name, f"{len(targets)} samples")
