"""Data types of training and evaluation: batches, windows, results, predictions, splits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

Positions = Sequence[int]  #: indices into the order of an epoch


@dataclass(frozen=True, slots=True)
class Mix:
    """Partners of mixed samples. A sample's loss is `share` · own loss + (1 − `share`) · loss for the partner."""

    targets: Tensor  #: N × …, the partners' targets
    share: Tensor  #: N, in 0…1, the share of the sample itself


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples that pass through the model together: a micro-batch in training, or a batch in evaluation."""

    inputs: Tensor  #: N × …, in the precision's dtype after `Precision.cast`
    targets: Tensor  #: N × …
    positions: Tensor  #: N, int64: positions in the epoch's order
    indices: Tensor  #: N, int64: indices in the official split
    mix: Mix | None = None  #: None if the samples are not mixed
    number: int = 0  #: of a micro-batch in its window

    @property
    def mix_arguments(self) -> tuple[Mix, ...]:
        """The last arguments for `Task.loss_sum` and `Metrics.update`: the mix, if there is one."""
        return () if self.mix is None else (self.mix,)


@dataclass(frozen=True, slots=True)
class Window:
    """Plan of one optimizer step: the positions of each micro-batch in the epoch's order."""

    micro_batches: tuple[Positions, ...]


@dataclass(frozen=True, slots=True)
class LoadedWindow:
    """A window with its data. Each iteration over `batches` fetches them again, one at a time."""

    number: int  #: index in the epoch, from 0
    samples: int
    weight: float  #: sum of the samples' weights
    batches: Iterable[Batch]


@dataclass(frozen=True, slots=True)
class MicroBatchResult:
    """Result of a forward and a backward pass. Nothing in it refers to the graph of the pass."""

    loss: Tensor  #: `loss_sum` divided by the weight of the window
    outputs: Tensor  #: N × …
    targets: Tensor  #: N × …
    loss_sum: Tensor  #: it asks for a gradient, which tells metrics that the batch was trained on
    mix: Mix | None = None
    number: int = 0  #: of the micro-batch in its window

    @property
    def metrics_arguments(self) -> tuple[Any, ...]:
        """The arguments of `Metrics.update`."""
        return self.outputs, self.targets, self.loss_sum, *(() if self.mix is None else (self.mix,))


@dataclass(frozen=True, slots=True)
class UpdateResult:
    """Result of `Precision.update`."""

    updated: bool  #: False if the step was skipped because the gradient is not finite
    grad_norm: float  #: unscaled, before clipping


@dataclass(frozen=True, slots=True)
class StepResult:
    """Result of one optimizer step."""

    loss: Tensor  #: mean loss of the window, a scalar on the device
    updated: bool  #: False if the step was skipped because the gradient is not finite
    grad_norm: float  #: unscaled, before clipping


@dataclass(frozen=True, slots=True)
class Predictions:
    """A model's outputs for all N samples of a split, on the CPU, in the order of the split."""

    outputs: Tensor  #: N × …, at least float32
    targets: Tensor  #: N × …
    indices: Tensor  #: N, int64, indices in the official split
    split: Split
    device: torch.device  #: device of the split's batches

    @property
    def files(self) -> Sequence[str] | None:
        """The samples' files; None if the split has no `files`."""
        return getattr(self.split, "files", None)

    def images(self, rows: Sequence[int]) -> Tensor | None:
        """Return some samples as images.

        Args:
            rows: K rows of the split.

        Returns:
            K × C × H × W images in 0…1 on the CPU, or None if the samples are no images.
        """
        selected_rows = torch.tensor(rows, dtype=torch.int64, device=self.device)
        return self.split.to_images(self.split.fetch(selected_rows, selected_rows).inputs)


@dataclass(frozen=True, slots=True)
class Report:
    """A task's report on a split."""

    text: str = field(repr=False)  #: to print
    images: Mapping[str, Path] = field(default_factory=dict)  #: title → file, to show in TensorBoard
    curves: Mapping[str, tuple[Tensor, Tensor]] = field(
        default_factory=dict, repr=False
    )  #: name → (N, bool: is positive; N: score), for PR curves


@dataclass(frozen=True, slots=True)
class Answer:
    """A task's prediction for a sample without a target."""

    cells: Mapping[str, str]  #: of its row in predictions.csv, by column
    caption: str  #: on the contact sheet
    names: tuple[str, ...] = ()  #: predicted classes, which the terminal counts
    unsure: bool = False  #: the caption is red


@runtime_checkable
class SupportsAnswers(Protocol):
    """A task that predicts samples without targets."""

    def answer(self, outputs: Tensor) -> Sequence[Answer]:
        """Return the predictions for N outputs, on the CPU."""


FetchRequest = tuple[Tensor, Tensor]  #: (rows, positions) of `Split.fetch`


@runtime_checkable
class Split(Protocol):
    """The N samples of one split."""

    targets: Tensor  #: N × …, on the CPU
    indices: Tensor  #: N, int64, on the CPU: indices in the official split

    def __len__(self) -> int: ...

    def fetch(self, rows: Tensor, positions: Tensor) -> Batch:
        """Return a batch on the run's device.

        Args:
            rows: K rows of the split (int64, on the run's device).
            positions: their K positions in the epoch's order.
        """

    def expect(self, requests: Sequence[FetchRequest]) -> None:
        """Announce calls of `fetch` with these tensors, in this order and as often, to let the split read ahead."""

    def to_images(self, inputs: Tensor) -> Tensor | None:
        """Convert the inputs of a batch to images.

        Returns:
            N × C × H × W images in 0…1 on the CPU, or None if the samples are no images.
        """
