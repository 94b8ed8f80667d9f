"""skorch: a NeuralNetClassifier with its defaults (a printed line each epoch) and a checkpoint each epoch."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from benchmarks.contestants.clock import Clock
from benchmarks.contestants.workload import (
    BATCH_SIZE,
    LABEL_SMOOTHING,
    OPTIMIZER,
    VAL_BATCH_SIZE,
    Workload,
    cosine,
)
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, Checkpoint, LRScheduler
from skorch.helper import predefined_split
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import TensorDataset


class EpochClock(Callback):
    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_begin(self, net: NeuralNetClassifier, **_: Any) -> None:
        self.clock.start()

    def on_epoch_end(self, net: NeuralNetClassifier, **_: Any) -> None:
        self.clock.lap(net.history[-1, "valid_acc"])


def train(workload: Workload, clock: Clock, mixed_precision: str | None = None) -> None:
    """Train."""
    torch.manual_seed(workload.seed)
    train_data, val_data = (TensorDataset(*workload.inputs(split)) for split in ("train", "val"))
    schedule = LRScheduler(LambdaLR, lr_lambda=partial(cosine, steps=workload.steps()), step_every="batch")
    settings = {f"optimizer__{name}": value for name, value in OPTIMIZER.items() if name != "lr"}
    net = build_class(mixed_precision)(
        workload.build_model,
        criterion=nn.CrossEntropyLoss,
        criterion__label_smoothing=LABEL_SMOOTHING,
        optimizer=torch.optim.SGD,
        lr=OPTIMIZER["lr"],
        **settings,
        max_epochs=workload.epochs,
        batch_size=BATCH_SIZE,
        iterator_train__shuffle=True,
        iterator_train__collate_fn=workload.collate_augmented,
        iterator_valid__batch_size=VAL_BATCH_SIZE,
        train_split=predefined_split(val_data),
        callbacks=[schedule, Checkpoint(monitor=None), EpochClock(clock)],
    )
    net.fit(train_data, y=None)


def build_class(mixed_precision: str | None) -> Any:
    """Return skorch's class, or the same with Accelerate's mixed precision."""
    if mixed_precision is None:
        return NeuralNetClassifier
    from accelerate import Accelerator
    from skorch.hf import AccelerateMixin

    class AcceleratedClassifier(AccelerateMixin, NeuralNetClassifier):
        pass

    return partial(AcceleratedClassifier, accelerator=Accelerator(mixed_precision=mixed_precision))
