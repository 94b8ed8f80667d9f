"""Trains for a short while, and measures the layers meanwhile and the outputs at the end."""

from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from math import isfinite
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from microstep.diagnostics.drift.training import DriftTraining
from microstep.diagnostics.learning.layers import LayerRecord, LayerWatch, depends_on
from microstep.diagnostics.learning.losses import least_loss, mean_loss, measure_neighbors, measure_relation
from microstep.diagnostics.learning.outputs import (
    are_probabilities,
    first_batch,
    is_constant,
    predict,
    predict_first,
    sample_batches,
)
from microstep.diagnostics.learning.trials import train
from microstep.diagnostics.learning_rate import iter_windows
from microstep.training.components import Components
from microstep.types.data import Batch
from microstep.utils.progress_bar import ProgressBars

SHORT_WINDOWS, LONGER_WINDOWS = 150, 600  #: of the short training; of a second one, if the first shows too little
RELATED = 3.0  #: standard deviations above which targets and outputs, or inputs, are related
CLEARLY, LOWER = 0.2, 0.99  #: least share of the relation of neighbors; share of the loss of constant outputs
USUAL_MOMENTUM = 0.1  #: of running statistics
TRAIN_SAMPLES, VAL_SAMPLES = 1024, 2000  #: drawn for the measurements after it


@dataclass(frozen=True)
class ShortTraining:
    """A short training on the data, and what came of it."""

    losses: list[float]  #: by window
    seconds: float  #: a window
    layers: dict[str, LayerRecord]  #: by parameter
    cut: list[str]  #: parameters without a gradient that the outputs depend on
    unused: list[str]  #: parameters without a gradient that the outputs do not depend on
    are_probabilities: bool
    is_constant: bool
    train_loss: float  #: of some training images in training mode
    eval_loss: float  #: of the same in evaluation mode
    constant_loss: float  #: of the best constant outputs for them
    val_loss: float
    val_constant_loss: float
    related: dict[str, float]  #: how outputs for train, in both modes, and val are related to the targets
    neighbors: dict[str, float]  #: the same of inputs, with those of the same split, and of val with train
    samples: dict[str, int]  #: drawn from train and val

    @property
    def has_learned(self) -> bool:
        """Whether outputs for val are related to the targets, and clearly: by their loss, or compared with neighbors.

        Without any training, they are related a little: similar images have similar outputs.
        """
        is_clear = self.related["val"] > CLEARLY * self.neighbors["val in train"]
        return self.related["val"] > RELATED and (is_clear or self.val_loss < LOWER * self.val_constant_loss)


def train_briefly(training: DriftTraining, windows: int, bars: ProgressBars) -> ShortTraining:
    """Train as configured for some windows, and measure the layers meanwhile."""
    components, start = training.components, perf_counter()
    watch = LayerWatch(components.model, components.precision)
    losses = train(training, iter_windows(training), windows, bars, watch=watch.after_window)
    seconds, layers = (perf_counter() - start) / len(losses), watch.close()
    missing = [name for name, record in layers.items() if isfinite(losses[0]) and not record.gradients]
    is_cut = missing and depends_on(components.model, partial(predict_first, components), missing)
    cut, unused = (missing, []) if is_cut else ([], missing)
    return ShortTraining(losses, seconds, layers, cut, unused, **compare_modes(components))


def compare_modes(components: Components) -> dict[str, Any]:
    """Return losses and relations of the trained model for images of train, in both modes, and of val.

    Running statistics are settled first by two passes in training mode, so they do not lag behind the weights.
    """
    task, model, size = components.task, deepcopy(components.model), len(first_batch(components).targets)
    train, val = (sample_batches(components, *each, size) for each in (("train", TRAIN_SAMPLES), ("val", VAL_SAMPLES)))
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.momentum:  # a small one would take long to settle
            module.momentum = max(module.momentum, USUAL_MOMENTUM)
    for _ in range(2):
        in_training, targets = predict(model.train(), train, components)
    outputs, (val_outputs, val_targets) = predict(model.eval(), train, components)[0], predict(model, val, components)
    pairs = {"train mode": (in_training, targets), "train": (outputs, targets), "val": (val_outputs, val_targets)}
    return {
        "are_probabilities": are_probabilities(outputs, targets),
        "is_constant": is_constant(outputs),
        "train_loss": mean_loss(task, in_training, targets).item(),
        "eval_loss": mean_loss(task, outputs, targets).item(),
        "constant_loss": least_loss(task, targets, outputs.shape, constant=True),
        "val_loss": mean_loss(task, val_outputs, val_targets).item(),
        "val_constant_loss": least_loss(task, val_targets, val_outputs.shape, constant=True),
        "related": {name: measure_relation(task, *pair) for name, pair in pairs.items()},
        "neighbors": compare_neighbors(train, val),
        "samples": {"train": len(targets), "val": len(val_targets)},
    }


def compare_neighbors(train: list[Batch], val: list[Batch]) -> dict[str, float]:
    known, asked = join_samples(train), join_samples(val)
    pairs = {"train": (known, known), "val": (asked, asked), "val in train": (known, asked)}
    return {name: measure_neighbors(*pair) for name, pair in pairs.items()}


def join_samples(batches: list[Batch]) -> tuple[Tensor, Tensor]:
    return torch.cat([batch.inputs for batch in batches]), torch.cat([batch.targets for batch in batches])
