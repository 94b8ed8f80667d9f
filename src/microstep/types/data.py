"""Values that travel through training and evaluation: batches, windows, results, predictions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

Positions = Sequence[int]


@dataclass(frozen=True, slots=True)
class Mix:
    """What the samples of a batch are mixed with: a loss is `share` · its own + (1 − `share`) · its partner's."""

    targets: Tensor  #: N × …: the partners'
    share: Tensor  #: N, in 0…1: of the sample itself


@dataclass(frozen=True, slots=True)
class Batch:
    """What goes through the model at once: a micro-batch of training, or a batch of evaluation."""

    inputs: Tensor  #: N × …, in the precision's dtype once cast
    targets: Tensor  #: N × …
    positions: Tensor  #: N, int64: each sample's place in the epoch's order
    indices: Tensor  #: N, int64: each sample's place in its official split
    mix: Mix | None = None

    @property
    def mix_arguments(self) -> tuple[Mix, ...]:
        """What a task and its metrics are told after the targets: the mix, where there is one."""
        return () if self.mix is None else (self.mix,)


@dataclass(frozen=True, slots=True)
class Window:
    """The plan of one optimizer step: its micro-batches, as positions in the epoch's order."""

    micro_batches: tuple[Positions, ...]


@dataclass(frozen=True, slots=True)
class LoadedWindow:
    """A window with its data: batches are fetched one at a time, afresh at each iteration."""

    number: int  #: counted from 0 within the epoch
    samples: int
    weight: float  #: the sum of its samples' weights, known before the first batch is fetched
    batches: Iterable[Batch]


@dataclass(frozen=True, slots=True)
class UpdateResult:
    """What became of a gradient: the unscaled norm before clipping, and whether it was applied."""

    updated: bool
    grad_norm: float


@dataclass(frozen=True, slots=True)
class StepResult:
    """One optimizer step: the window's mean loss (still on the device) and what became of its gradient."""

    loss: Tensor
    updated: bool
    grad_norm: float


@dataclass(frozen=True, slots=True)
class Predictions:
    """A model's outputs over a whole split, on the CPU, in the split's own order."""

    outputs: Tensor  #: N × …, at least float32
    targets: Tensor
    indices: Tensor
    split: Split
    device: torch.device  #: where the split's batches come

    @property
    def files(self) -> Sequence[str] | None:
        """The samples' files, where they are some; the split says so."""
        return getattr(self.split, "files", None)

    def images(self, rows: Sequence[int]) -> Tensor | None:
        """Return these samples as N × C × H × W images in 0…1 on the CPU, or None where they are no pictures."""
        selected_rows = torch.tensor(rows, dtype=torch.int64, device=self.device)
        return self.split.to_images(self.split.fetch(selected_rows, selected_rows).inputs)


@dataclass(frozen=True, slots=True)
class Report:
    """What a task reports of its predictions: files written, a text to print, pictures and curves to show."""

    text: str
    images: Mapping[str, Path] = field(default_factory=dict)
    curves: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)  #: name → (is positive, score)


FetchRequest = tuple[Tensor, Tensor]  #: rows and positions, as `Split.fetch` takes them


@runtime_checkable
class Split(Protocol):
    """The samples of one split. `targets` and `indices` are on the CPU; batches come on the run's device."""

    targets: Tensor
    indices: Tensor

    def __len__(self) -> int: ...

    def fetch(self, rows: Tensor, positions: Tensor) -> Batch:
        """Return the batch of these rows of the split (int64, on the run's device)."""

    def expect(self, requests: Sequence[FetchRequest]) -> None:
        """Take note that these very tensors will be fetched, in this order: who reads ahead may begin."""

    def to_images(self, inputs: Tensor) -> Tensor | None:
        """Return a batch's inputs as N × C × H × W images in 0…1 on the CPU, or None where they are no pictures."""
