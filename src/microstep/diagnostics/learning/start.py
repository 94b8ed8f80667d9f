"""Measures an experiment before its first step."""

from dataclasses import dataclass, replace
from functools import partial
from math import nan

import torch
from omegaconf import DictConfig

from microstep.components.dataset import ImageDataset
from microstep.diagnostics.drift.training import DriftTraining
from microstep.diagnostics.learning.layers import find_constant_layer
from microstep.diagnostics.learning.outputs import (
    are_probabilities,
    differ,
    is_constant,
    predict,
    predict_first,
)
from microstep.diagnostics.learning.trials import take_batch
from microstep.training.components import Components
from microstep.training.normalization import find_normalization


@dataclass(frozen=True)
class Start:
    """Measurements before the first step."""

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
