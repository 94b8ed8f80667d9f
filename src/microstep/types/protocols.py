"""Protocols of the replaceable parts. An implementation needs no base class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from microstep.types.data import Batch, Mix, Positions, Predictions, Report, Split, StepResult, UpdateResult, Window


@runtime_checkable
class Dataset(Protocol):
    """Training, validation and test samples, and what they say of themselves."""

    @property
    def splits(self) -> Mapping[str, Split]:
        """`train`, `val` and `test`."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What is offered by name to the constructors of task and model."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the samples and how they were split."""

    @property
    def summary(self) -> str:
        """One line for the start-up summary."""


@runtime_checkable
class Precision(Protocol):
    """How a gradient is made and applied: dtypes, autocast, scaling, clipping, the step itself."""

    name: str
    reason: str  #: why this precision, in a few words, for the start-up summary
    dtype: torch.dtype  #: of parameters and inputs
    max_skipped: int  #: windows in a row that may be skipped before the run counts as diverged

    def prepare(self, model: nn.Module) -> nn.Module:
        """Return the model in this precision's dtype and memory format."""

    def cast(self, batch: Batch) -> Batch:
        """Return the batch in this precision's dtype and memory format."""

    def forward(self) -> AbstractContextManager[Any]:
        """Return the context in which the model is called."""

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss`, scaled where the precision scales, to the parameters'."""

    def update(self, optimizer: Optimizer, max_grad_norm: float | None) -> UpdateResult:
        """Unscale once, then clip, then step; where the gradient is not finite, leave the weights alone."""

    def loss_scale(self) -> float:
        """Return the present gradient scale; 1.0 where nothing is scaled."""

    def describe(self) -> Mapping[str, Any]:
        """Return name, dtype and scaler, for run.json."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@runtime_checkable
class Accumulation(Protocol):
    """How an epoch's order is cut into windows and micro-batches: a plan, made before any data is read."""

    def windows(self, order: Positions) -> Iterator[Window]:
        """Yield the epoch's windows; together they hold every position once, in order."""

    def steps(self, samples: int) -> int:
        """Return the number of windows in an epoch of that many samples."""


@runtime_checkable
class Sampler(Protocol):
    """Chooses the samples of an epoch, and their order."""

    def order(self, *key: int) -> Tensor:
        """Return the row at each position (int64, on the CPU), a pure function of `key`: (seed, epoch).

        There are as many positions as the training split has samples. A row may be repeated or left out.
        """


class Mixing(Protocol):
    """An epoch's mixing of samples by twos: who with whom and how much, by position, on the run's device."""

    partners: Tensor  #: the position that each position is mixed with: a permutation, int64
    share: Tensor  #: what is left of the sample itself, in 0…1

    def blend(self, inputs: Tensor, partner_inputs: Tensor, positions: Tensor) -> Tensor:
        """Return the inputs of some positions, mixed with their partners'."""


@runtime_checkable
class Augment(Protocol):
    """What is done to training samples: a pure function of (seed, epoch, position)."""

    def view(self, split: Split, *key: int) -> Split:
        """Return the split as an epoch sees it; `key` is (seed, epoch)."""

    def mixing(self, split: Split, device: torch.device, *key: int) -> Mixing | None:
        """Return the epoch's mixing, or None where samples are left alone."""


class Metrics(Protocol):
    """Sums over the samples seen, kept on the device; reading them is the only thing that waits for it."""

    monitor: str  #: the metric by which the best checkpoint is chosen
    direction: Literal["max", "min"]

    def update(self, outputs: Tensor, targets: Tensor, loss_sum: Tensor, mix: Mix | None = None) -> None:
        """Add one batch; `loss_sum` is its summed, weighted loss. Only batches that are mixed come with a `mix`."""

    def compute(self) -> dict[str, float]:
        """Return every metric, `loss` among them, over all samples since the last reset."""

    def running_values(self) -> dict[str, float]:
        """Return the few that a progress bar shows; cheap."""

    def reset(self) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        """Return the sums, as tensors and plain values: a checkpoint made in mid-epoch holds them."""

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@runtime_checkable
class Task(Protocol):
    """What the model is for. Nothing outside a task knows what a label is."""

    def weight(self, targets: Tensor) -> Tensor:
        """Return each sample's weight (N, float64, on the targets' device)."""

    def loss_sum(self, outputs: Tensor, targets: Tensor, mix: Mix | None = None) -> Tensor:
        """Return the weighted sum of the samples' losses, a scalar.

        A task that can't be mixed leaves `mix` out of its signature: only batches that are mixed come with one.
        """

    def metrics(self) -> Metrics:
        """Return fresh metrics."""

    def report(self, predictions: Predictions, directory: Path) -> Report:
        """Write the report's files into an existing directory."""


@runtime_checkable
class SupportsDecide(Protocol):
    """What a task may offer besides: what it takes a sample for, so that two models' predictions can be compared."""

    def decide(self, outputs: Tensor) -> Tensor:
        """Return what each of N samples is taken for, N × …; two predictions differ where any of it does."""


@runtime_checkable
class Step(Protocol):
    """One optimizer step over one window, whatever the strategy."""

    metrics: Metrics  #: fed with the outputs of every batch that the step trains on

    def __call__(self, model: nn.Module, optimizer: Optimizer, window: Iterable[Batch], weight: float) -> StepResult:
        """Make the gradient of the window's mean loss and apply it.

        `window` fetches lazily and may be iterated more than once; `weight` is the sum of its samples' weights.
        """


@runtime_checkable
class Scheduler(Protocol):
    """A learning rate schedule in optimizer steps, as in torch.optim.lr_scheduler."""

    def step(self) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...
