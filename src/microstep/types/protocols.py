"""Protocols of the replaceable components. An implementation needs no base class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from microstep.types.data import (
    Batch,
    MicroBatchResult,
    Mix,
    Positions,
    Predictions,
    Report,
    Split,
    StepResult,
    UpdateResult,
    Window,
)


@runtime_checkable
class Stateful(Protocol):
    """A component whose state is part of every checkpoint. Any component may be one."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state as tensors and plain values."""

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Restore the state. Its tensors are on the CPU, so copy their values to the device of the model."""


@runtime_checkable
class Dataset(Protocol):
    """Training, validation and test samples."""

    @property
    def splits(self) -> Mapping[str, Split]:
        """The splits `train`, `val` and, if there is one, `test`."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """Arguments offered by name to the constructors of task and model, such as `num_classes`."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the samples and their division into splits."""

    @property
    def summary(self) -> str:
        """One line for the start-up summary."""


@runtime_checkable
class Precision(Stateful, Protocol):
    """Computes and applies gradients: dtypes, autocast, loss scaling, clipping, optimizer step."""

    name: str
    reason: str  #: why this precision was chosen; shown in the start-up summary
    dtype: torch.dtype  #: dtype of parameters and inputs
    max_skipped: int  #: consecutive windows that may be skipped before the run has diverged

    def prepare(self, model: nn.Module) -> nn.Module:
        """Return the model in this precision's dtype and memory format."""

    def cast(self, batch: Batch) -> Batch:
        """Return the batch in this precision's dtype and memory format."""

    def forward(self) -> AbstractContextManager[Any]:
        """Return the context in which the model is called."""

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss`, scaled if the precision scales it, to the parameters' gradients."""

    def update(
        self, optimizer: Optimizer, max_grad_norm: float | None, transform: Transform | None = None
    ) -> UpdateResult:
        """Unscale the gradient, transform it, clip it, and step. If it is not finite, the weights stay unchanged."""

    def loss_scale(self) -> float:
        """Return the current loss scale; 1.0 without scaling."""

    def describe(self) -> Mapping[str, Any]:
        """Return name, dtype and scaler for run.json."""


@runtime_checkable
class Accumulation(Protocol):
    """Plans how an epoch is divided into windows and micro-batches."""

    def windows(self, order: Positions) -> Iterator[Window]:
        """Yield the windows of an epoch. Together they contain every position of `order` once, in order."""

    def steps(self, samples: int) -> int:
        """Return the number of windows in an epoch of `samples` samples."""


@runtime_checkable
class Sampler(Protocol):
    """Chooses the samples of an epoch and their order."""

    def order(self, *key: int) -> Tensor:
        """Return the rows of the training split at the N positions of an epoch (int64, on the CPU).

        The result must depend on `key`, (seed, epoch), alone. Rows may be repeated or left out. N is at least 1 and may
        differ from the length of the split, but it must be the same in every epoch.
        """


class Mixing(Protocol):
    """Mixes each sample of an epoch with a partner. The tensors are on the run's device."""

    partners: Tensor  #: N, int64: position of the partner of each position, a permutation
    share: Tensor  #: N, in 0…1: share of the sample itself

    def blend(self, inputs: Tensor, partner_inputs: Tensor, positions: Tensor) -> Tensor:
        """Return K × C × H × W inputs, mixed with those of their partners, for K positions."""


@runtime_checkable
class Augment(Protocol):
    """Augments training samples. The result must depend only on (seed, epoch, position)."""

    def view(self, split: Split, *key: int, samples: int) -> Split:
        """Return the augmented split for an epoch with that many positions. `key` is (seed, epoch)."""

    def mixing(self, split: Split, device: torch.device, *key: int, samples: int) -> Mixing | None:
        """Return the mixing of an epoch with that many positions, or None if samples are not mixed."""


class Metrics(Stateful, Protocol):
    """Accumulates metrics on the device. Only `compute` and `running_values` may wait for it.

    Metrics with an attribute `directions`, a mapping of names to `max` or `min`, can be monitored by name alone.
    """

    monitor: str  #: name of the metric that chooses the best checkpoint, unless the key `monitor` is set
    direction: Literal["max", "min"]  #: whether a larger or a smaller value of it is better

    def update(self, outputs: Tensor, targets: Tensor, loss_sum: Tensor, mix: Mix | None = None) -> None:
        """Add a batch: N × … outputs and targets, and `Task.loss_sum` of both. Only mixed batches have a `mix`."""

    def compute(self) -> dict[str, float]:
        """Return every metric, including `loss`, over all samples since the last reset."""

    def running_values(self) -> dict[str, float]:
        """Return a few metrics for the progress bar. It must be fast."""

    def reset(self) -> None: ...


@runtime_checkable
class Task(Protocol):
    """Defines loss, metrics and report. Only the task interprets targets.

    A task with an attribute `outputs`, the numbers that a model returns for a sample, sets the model's `num_classes`.
    A task with a method `average_views(outputs)` averages V × N × … outputs of V views of each sample. One with
    `train_metrics` measures the training samples by these instead of `metrics`. One with `fitted`, lists of numbers
    such as thresholds, gets them as an argument when weights are loaded. Its method `fit(predictions)` may change them
    at the end of training, for the best checkpoint on `val`.
    """

    def weight(self, targets: Tensor) -> Tensor:
        """Return the samples' weights (N, float64, on the targets' device) for N × … targets."""

    def loss_sum(self, outputs: Tensor, targets: Tensor, mix: Mix | None = None) -> Tensor:
        """Return the weighted sum of the losses of N × … outputs and targets: a scalar with a gradient.

        Only mixed batches have a `mix`. A task without this parameter doesn't support mixing.
        """

    def metrics(self) -> Metrics:
        """Return new, empty metrics."""

    def report(self, predictions: Predictions, directory: Path) -> Report:
        """Write a report on a split into an existing directory, and return it."""


@runtime_checkable
class SupportsDecide(Protocol):
    """A task whose predictions can be compared between two models."""

    def decide(self, outputs: Tensor) -> Tensor:
        """Return the predictions (N × …) for N outputs. Two differ if any of their elements does."""


@runtime_checkable
class Transform(Protocol):
    """Transforms the gradient of a window in place, before it is clipped."""

    def __call__(self, parameters: Sequence[nn.Parameter], norm: float) -> None:
        """Change the gradients of the parameters, those of the optimizer; `grad` may be None.

        The gradient is that of the whole window, unscaled and finite, and `norm` is its L2 norm.
        """


@runtime_checkable
class Averaging(Protocol):
    """Averages the weights of a model over its optimizer steps. The average is validated, kept and reported.

    An average with a method `refresh()`, without arguments, prepares its weights there before each validation.
    """

    def update(self, model: nn.Module, steps: int) -> None:
        """Include the weights after an optimizer step; `steps` counts those of the run. Skipped steps don't count."""

    def weights(self, model: nn.Module) -> Mapping[str, Tensor] | None:
        """Return the averaged entries of the model's state dict, or None before there are any."""

    def load(self, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
        """Restore the average from the state dict of the averaged model. A checkpoint holds it as `model`."""


@runtime_checkable
class Strategy(Protocol):
    """Distributes the micro-batches of a window over processes, the ranks, and adds up their gradients.

    All ranks hold the same weights and states, and make the same steps.
    """

    rank: int  #: of this process; 0 writes the run directory
    world_size: int  #: number of ranks

    def share(self, micro_batches: int) -> range:
        """Return which of a window's micro-batches this rank computes; maybe none."""

    def reduce(self, model: nn.Module, results: Iterable[MicroBatchResult], metrics: Metrics | None) -> Tensor:
        """Compute this rank's micro-batches of a window, and add up the gradients of all ranks in every rank.

        Args:
            results: makes one pass over this rank's micro-batches, which adds to the gradients of the parameters.
            metrics: updated with the micro-batches of all ranks, in the order of the window.

        Returns:
            The sum of the micro-batches' losses (0-d).
        """

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all ranks, in order. A value is made of tensors, tuples and plain values."""

    def broadcast(self, value: Any) -> Any:
        """Return the value of rank 0."""


@runtime_checkable
class Step(Protocol):
    """Makes one optimizer step from one window."""

    metrics: Metrics  #: updated with every batch that the step trains on

    def __call__(self, model: nn.Module, optimizer: Optimizer, window: Iterable[Batch], weight: float) -> StepResult:
        """Compute the gradient of the window's mean loss and apply it.

        Args:
            window: fetches its batches lazily; it may be iterated more than once. A step with an attribute `passes`
                iterates it that often, and streamed images are read once.
            weight: sum of the weights of the window's samples.
        """


@runtime_checkable
class Sink(Protocol):
    """Receives a run's scalars and files outside the run. It may be slow, hang or fail. A single thread calls it."""

    def open(self, known: str | None, name: str, settings: Mapping[str, Any]) -> str:
        """Start a remote run, or continue the one with the id `known`. Return its id; a new id has nothing yet."""

    def scalars(self, values: Mapping[str, float], step: int) -> None: ...

    def file(self, path: Path) -> None: ...

    def end(self, failed: bool) -> None: ...


@runtime_checkable
class Scheduler(Stateful, Protocol):
    """Learning rate schedule in optimizer steps, as in `torch.optim.lr_scheduler`."""

    def step(self) -> None: ...


@runtime_checkable
class FollowsValidation(Protocol):
    """A schedule that also follows the monitored metric."""

    def after_validation(self, value: float) -> None:
        """Adjust the learning rate after a validation; `value` as in `Stopping.after`."""


@runtime_checkable
class Stopping(Protocol):
    """Decides whether a run stops before its last epoch."""

    def after(self, epoch: int, value: float, seconds: float) -> str | None:
        """Return why the run stops after a validation, in a few words, or None if it goes on.

        Args:
            epoch: number of the epoch, from 1; with `validate_every_steps`, that of the validation.
            value: the monitored metric, negated if smaller is better; NaN if the metric or the loss is not finite.
            seconds: training time of the run, including earlier processes.
        """
