"""Measures an experiment before, during and after a short training."""

from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite, nan
from time import perf_counter
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from microstep.components.dataset import ImageDataset
from microstep.components.task.known_targets import are_labels
from microstep.diagnostics.drift.training import DriftTraining
from microstep.diagnostics.learning.layers import LayerRecord, LayerWatch, depends_on, find_constant_layer, is_constant
from microstep.diagnostics.learning.losses import least_loss, mean_loss, measure_neighbors, measure_relation
from microstep.diagnostics.learning.trials import predict, sample_batches, take_batch, train
from microstep.diagnostics.learning_rate import iter_windows
from microstep.training.components import Components
from microstep.training.normalization import find_normalization
from microstep.types.data import Batch
from microstep.utils.progress_bar import ProgressBars

SHORT_WINDOWS, LONGER_WINDOWS = 150, 600  #: of the short training; of a second one, if the first shows too little
RELATED = 3.0  #: standard deviations above which targets and outputs, or inputs, are related
CLEARLY, LOWER = 0.2, 0.99  #: least share of the relation of neighbors; share of the loss of constant outputs
ROUNDING = 0.05  #: relative difference of outputs
USUAL_MOMENTUM = 0.1  #: of running statistics
TRAIN_SAMPLES, VAL_SAMPLES = 1024, 2000  #: drawn for the measurements after it


@dataclass(frozen=True)
class Start:
    """What is known before the first step."""

    outputs: int  #: numbers that the model returns for a sample
    expected_outputs: int
    distinct_targets: int  #: of the training split
    input_mean: float
    input_rms: float  #: root mean square of the inputs; NaN if one is not finite
    input_change: float  #: largest standard deviation of an input over samples
    normalization: tuple[float, float] | None  #: largest distance from mean and std of the pretrained weights, in std
    are_probabilities: bool
    is_random: bool  #: whether outputs differ if they are computed again, in evaluation mode
    mixes_samples: bool  #: whether outputs of a sample depend on the others of its batch, in evaluation mode
    is_constant: bool  #: whether outputs are the same for all samples
    constant_layer: tuple[str, bool] | None  #: first layer that makes them so, and whether it is an activation
    frozen: list[str]  #: parameters that ask for no gradient, although no key freezes any
    not_optimized: list[str]  #: parameters that ask for a gradient, and that the optimizer was not given


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


def measure_start(config: DictConfig, training: DriftTraining) -> Start:
    components, optimizer = training.components, training.optimization.optimizer
    model, batches = components.model, take_batch(components).batches
    outputs, targets = predict(model.eval(), batches, components)
    inputs, first = torch.cat([batch.inputs for batch in batches]).double(), next(iter(batches))
    whole, alone = predict(model, [first], components)[0], replace(first, inputs=first.inputs[:1])
    expected = getattr(components.task, "outputs", None) or components.dataset.facts["num_classes"]
    given = {id(p) for group in optimizer.param_groups for p in group["params"]}
    parameters = dict(model.named_parameters())
    freezes = config.model.get("freeze") is not None
    return Start(
        outputs=outputs[0].numel(),
        expected_outputs=int(expected),
        distinct_targets=len(torch.unique(components.loaders.splits["train"].targets, dim=0)),
        input_mean=inputs.mean().item(),
        input_rms=inputs.square().mean().sqrt().item() if inputs.isfinite().all() else nan,
        input_change=inputs.std(0).max().item(),
        normalization=compare_normalization(components),
        are_probabilities=are_probabilities(outputs, targets),
        is_random=differ(whole, predict(model, [first], components)[0]),
        mixes_samples=differ(whole[:1], predict(model, [alone], components)[0]),
        is_constant=is_constant(outputs),
        constant_layer=find_constant_layer(model, partial(predict_first, components)),
        frozen=[] if freezes else [name for name, p in parameters.items() if not p.requires_grad],
        not_optimized=[name for name, p in parameters.items() if p.requires_grad and id(p) not in given],
    )


def compare_normalization(components: Components) -> tuple[float, float] | None:
    """Return how far mean and standard deviation are from those of the model's pretrained weights, if it has any."""
    own, dataset = find_normalization(components.model), components.dataset
    if own is None or not isinstance(dataset, ImageDataset):
        return None
    used, (mean, std) = dataset.normalization, (torch.tensor(values) for values in own)
    pairs = (torch.tensor(used.mean) - mean, torch.tensor(used.std) - std)
    return tuple((difference / std).abs().max().item() for difference in pairs)  # type: ignore[return-value]


def are_probabilities(outputs: Tensor, targets: Tensor) -> bool:
    """Return whether all outputs are in 0…1, as those of a softmax or sigmoid; False for numbers as targets."""
    if targets.is_floating_point():
        return are_labels(targets) and bool(((outputs > 0) & (outputs < 1)).all())
    return bool(((outputs >= 0) & (outputs <= 1)).all()) and not is_constant(outputs)


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


def predict_first(components: Components) -> Tensor:
    """Return the outputs for the first micro-batch in evaluation mode, with the same random numbers every time."""
    return predict(components.model.eval(), [first_batch(components)], components)[0]


def first_batch(components: Components) -> Batch:
    return next(iter(next(components.loaders.train(1, last=1)).batches))


def differ(one: Tensor, other: Tensor) -> bool:
    """Return whether outputs differ by more than rounding, also that of bf16."""
    return bool((one - other).abs().max() > ROUNDING * one.abs().max())


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
