"""Outputs of a model for some batches, and what can be seen in them alone."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from microstep.components.task.known_targets import are_labels
from microstep.training.components import Components
from microstep.types.data import Batch

ROUNDING = 0.05  #: relative difference of outputs


def predict(model: nn.Module, batches: Iterable[Batch], components: Components) -> tuple[Tensor, Tensor]:
    """Return outputs, at least float32, and targets, with the model as it is: in training or in evaluation mode."""
    outputs, targets, precision = list[Tensor](), list[Tensor](), components.precision
    for batch in map(precision.cast, batches):
        with torch.no_grad(), precision.forward():
            found = model(batch.inputs)
        outputs.append(found.to(torch.promote_types(found.dtype, torch.float32)))
        targets.append(batch.targets)
    return torch.cat(outputs), torch.cat(targets)


def predict_first(components: Components) -> Tensor:
    """Return the outputs for the first micro-batch in evaluation mode, with the same random numbers every time."""
    return predict(components.model.eval(), [first_batch(components)], components)[0]


def first_batch(components: Components) -> Batch:
    return next(iter(next(components.loaders.train(1, last=1)).batches))


def sample_batches(components: Components, split: str, samples: int, size: int) -> list[Batch]:
    """Return whole batches of samples of a split, drawn at random, not augmented."""
    data = components.loaders.splits[split]
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:samples].to(components.device)
    rows = [each for each in torch.split(order, min(size, len(order))) if len(each) == min(size, len(order))]
    data.expect(requests := [(each, each) for each in rows])
    return [data.fetch(*request) for request in requests]


def differ(one: Tensor, other: Tensor) -> bool:
    """Return whether outputs differ by more than rounding, also that of bf16."""
    return bool((one - other).abs().max() > ROUNDING * one.abs().max())


def is_constant(outputs: object) -> bool:
    """Return whether N × … outputs are the same for all samples, up to rounding."""
    if not isinstance(outputs, Tensor) or outputs.numel() == 0:
        return False
    values = outputs.float()
    return bool((values - values[:1]).abs().max() <= 1e-6 * values.abs().max())


def are_probabilities(outputs: Tensor, targets: Tensor) -> bool:
    """Return whether all outputs are in 0…1, as those of a softmax or sigmoid; False for numbers as targets."""
    if targets.is_floating_point():
        return are_labels(targets) and bool(((outputs > 0) & (outputs < 1)).all())
    return bool(((outputs >= 0) & (outputs <= 1)).all()) and not is_constant(outputs)
