"""Models with planted faults."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from math import prod
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from microstep.components.dataset import ImageDataset, digits
from microstep.types.data import Batch, StepResult, Window
from microstep.types.protocols import Metrics, Precision, Task


def ranked_digits(device: torch.device) -> ImageDataset:
    """Return digits, split differently in each process."""
    return digits(device, split_seed=int(os.environ.get("RANK", "0")))


class Alone:
    """A step that computes a gradient of its own, without `accumulate_gradient`."""

    def __init__(self, precision: Precision, task: Task, metrics: Metrics, max_grad_norm: float | None) -> None:
        self.precision, self.task, self.metrics = precision, task, metrics

    def __call__(self, model: nn.Module, optimizer: Optimizer, window: Iterable[Batch], weight: float) -> StepResult:
        optimizer.zero_grad()
        losses = [self.task.loss_sum(model(batch.inputs), batch.targets) / weight for batch in window]
        loss = torch.stack(losses).sum()
        self.precision.backward(loss)
        update = self.precision.update(optimizer, None)
        return StepResult(loss.detach(), update.updated, update.grad_norm)


class OneProcess:
    """An accumulation that knows of one process."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size

    def windows(self, positions: range) -> Iterable[Window]:
        return []

    def steps(self, samples: int) -> int:
        return 0


def normed(input_shape: Sequence[int], num_classes: int, width: int = 8) -> nn.Module:
    """Return a small network with BatchNorm and dropout: buffers and masks that a resume must restore."""
    return nn.Sequential(
        nn.Conv2d(input_shape[0], width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Dropout2d(0.2),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * width, num_classes),
    )


class Signalled(nn.Sequential):
    """A perceptron that may send its own process a signal at its n-th training micro-batch, or evaluation batch.

    The environment says which: `SIGNALLED="15 100 training 1"` sends signal 15 once at the hundredth training call.
    Signal 0 raises an error instead. Of several processes it is rank 0 that does so, or `SIGNALLED_RANK`.
    """

    def __init__(self, input_shape: Sequence[int], num_classes: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(prod(input_shape), 32), nn.Dropout(0.2), nn.Linear(32, num_classes))
        number, at, when, times = os.environ.get("SIGNALLED", "0 0 never 0").split()
        self.number, self.at, self.when, self.times, self.calls = int(number), int(at), when, int(times), 0
        rank = os.environ.get("RANK") or os.environ.get("SLURM_PROCID", "0")
        if rank != os.environ.get("SIGNALLED_RANK", "0"):
            self.when = "never"

    def forward(self, inputs: Tensor) -> Tensor:
        if self.when == ("training" if self.training else "evaluating"):
            self.calls += 1
            for _ in range(self.times if self.calls == self.at else 0):
                Path("signalled").touch()
                if not self.number:
                    raise ValueError("planted")
                os.kill(os.getpid(), self.number)
        return super().forward(inputs)


class Unplugged(nn.Sequential):
    """A perceptron that may rename the folder of its data at its n-th training micro-batch, or evaluation batch.

    The environment says which: `UNPLUGGED="photos 100 training"` makes `photos` `photos.away` at the hundredth.
    """

    def __init__(self, input_shape: Sequence[int], num_classes: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(prod(input_shape), 8), nn.ReLU(), nn.Linear(8, num_classes))
        folder, at, self.when = os.environ.get("UNPLUGGED", "none 0 never").split()
        self.folder, self.at, self.calls = Path(folder), int(at), 0

    def forward(self, inputs: Tensor) -> Tensor:
        if self.when == ("training" if self.training else "evaluating"):
            self.calls += 1
            if self.calls == self.at:
                self.folder.rename(f"{self.folder}.away")
        return super().forward(inputs)
