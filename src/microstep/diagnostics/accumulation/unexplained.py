"""Searches for the reason of a difference that remains if every known cause is switched off."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from microstep.diagnostics.accumulation.batch_dependence import module_hooks
from microstep.training.profiling.gradients import relative_distance
from microstep.types.data import Batch
from microstep.types.protocols import Task


def explain_difference(
    model: nn.Module, batches: Sequence[Batch], full_batch: Batch, task: Task, tolerance: float
) -> str:
    """Return the suspected reason: a layer that draws or mixes samples, a tensor that changes, or the loss.

    `model` has every known cause switched off and does not change. Differences up to `tolerance` do not count.
    """
    reasons = [f"{name} changes at every call" for name in find_changing_tensors(model, full_batch)[:3]]
    if unstable := [] if reasons else find_differing_layers(model, full_batch, full_batch, tolerance):
        return f"layer {unstable[0]} gives other outputs for the same inputs: it draws outside torch's generators"
    reasons += [f"layer {name} mixes samples" for name in find_mixing_layers(model, full_batch, tolerance)[:1]]
    if not reasons and not is_loss_additive(model, batches, full_batch, task, tolerance):
        reasons = ["the task's loss_sum is no sum over samples"]
    return ", ".join(reasons) or "something that changes from call to call, perhaps"


def find_mixing_layers(model: nn.Module, full_batch: Batch, tolerance: float) -> list[str]:
    """Return the layers in which the first sample's input changes the outputs of other samples."""
    other = replace(full_batch, inputs=torch.cat([full_batch.inputs[:1].flip(-1) + 1, full_batch.inputs[1:]]))
    return find_differing_layers(model, full_batch, other, tolerance, first=1)


@torch.no_grad()
def find_differing_layers(model: nn.Module, one: Batch, other: Batch, tolerance: float, first: int = 0) -> list[str]:
    """Return the layers whose outputs differ from sample `first` on, in the order of execution."""

    def differ(before: Tensor, after: Tensor) -> bool:
        return before.shape != after.shape or relative_distance([(after, before)]) > tolerance

    before, after = (dict(iter_layer_outputs(model, batch)) for batch in (one, other))
    names = [name for name in before if name in after and len(before[name]) == len(one.inputs)]
    return [name for name in names if differ(before[name][first:], after[name][first:])]


def iter_layer_outputs(model: nn.Module, batch: Batch) -> Iterator[tuple[str, Tensor]]:
    copied, outputs = copy.deepcopy(model), list[tuple[nn.Module, Tensor]]()
    names = {module: f'"{name}" ({type(module).__name__})' for name, module in copied.named_modules()}

    def leave(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.dim():
            outputs.append((module, output))

    with module_hooks(copied, lambda module, inputs: None, leave):
        copied(batch.inputs)
    return ((names[module], output) for module, output in outputs)


@torch.no_grad()
def find_changing_tensors(model: nn.Module, full_batch: Batch) -> list[str]:
    copied = copy.deepcopy(model)
    before = {name: tensor.clone().nan_to_num() for name, tensor in copied.state_dict(keep_vars=True).items()}
    copied(full_batch.inputs)
    after = copied.state_dict(keep_vars=True)
    return [name for name, tensor in after.items() if not torch.equal(before[name], tensor.nan_to_num())]


@torch.no_grad()
def is_loss_additive(
    model: nn.Module, batches: Sequence[Batch], full_batch: Batch, task: Task, tolerance: float
) -> bool:
    outputs = copy.deepcopy(model)(full_batch.inputs)
    parts = torch.split(outputs, [len(batch.inputs) for batch in batches])
    total = float(task.loss_sum(outputs, full_batch.targets, *full_batch.mix_arguments))
    added = sum(float(task.loss_sum(o, b.targets, *b.mix_arguments)) for o, b in zip(parts, batches, strict=True))
    return abs(added - total) <= tolerance * abs(total)
