"""What else may be the matter, where a difference remains when every known cause is taken away."""

from __future__ import annotations

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
    """Return in words what is found: a layer that isn't the same twice or mixes samples, a buffer that moves, the loss.

    Args:
        model: with every known cause taken away; it stays as it is.
        batches, whole: a window's micro-batches, and the same as one.
    """
    found = [f"{name} changes at every call" for name in find_moving_tensors(model, full_batch)[:3]]
    if unstable := [] if found else find_differing_layers(model, full_batch, full_batch, tolerance):
        return f"layer {unstable[0]} gives other outputs for the same inputs: it draws outside torch's generators"
    found += [f"layer {name} mixes samples" for name in find_mixing_layers(model, full_batch, tolerance)[:1]]
    if not found and not loss_adds_up(model, batches, full_batch, task, tolerance):
        found = ["the task's loss_sum is no sum over samples"]
    return ", ".join(found) or "something that changes from call to call, perhaps"


@torch.no_grad()
def find_mixing_layers(model: nn.Module, full_batch: Batch, tolerance: float) -> list[str]:
    """Return the layers in which other samples' outputs change with the first sample's input, the first ones first."""
    other = replace(full_batch, inputs=torch.cat([full_batch.inputs[:1].flip(-1) + 1, full_batch.inputs[1:]]))
    return find_differing_layers(model, full_batch, other, tolerance, first=1)


@torch.no_grad()
def find_differing_layers(model: nn.Module, one: Batch, other: Batch, tolerance: float, first: int = 0) -> list[str]:
    """Return the layers whose outputs differ between two batches, from some sample on; the first ones first."""
    before, after = (dict(iter_layer_outputs(model, batch)) for batch in (one, other))
    together = {name: after[name] for name in before if name in after and len(before[name]) == len(one.inputs)}
    return [
        name for name, output in together.items() if outputs_differ(before[name][first:], output[first:], tolerance)
    ]


def outputs_differ(one: Tensor, other: Tensor, tolerance: float) -> bool:
    return one.shape != other.shape or relative_distance([(other, one)]) > tolerance


def iter_layer_outputs(model: nn.Module, batch: Batch) -> Iterator[tuple[str, Tensor]]:
    """Yield every layer's output, in the order in which they are made."""
    own, made = copy.deepcopy(model), list[tuple[nn.Module, Tensor]]()
    names = {module: f'"{name}" ({type(module).__name__})' for name, module in own.named_modules()}

    def leave(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.dim():
            made.append((module, output))

    with module_hooks(own, lambda module, inputs: None, leave):
        own(batch.inputs)
    return ((names[module], output) for module, output in made)


@torch.no_grad()
def find_moving_tensors(model: nn.Module, full_batch: Batch) -> list[str]:
    """Return the buffers and parameters that a forward pass changes."""
    own = copy.deepcopy(model)
    before = {name: tensor.clone() for name, tensor in own.state_dict(keep_vars=True).items()}
    own(full_batch.inputs)
    return [name for name, tensor in own.state_dict(keep_vars=True).items() if tensors_differ(before[name], tensor)]


def tensors_differ(before: Tensor, after: Tensor) -> bool:
    """Say whether any number is another one; a NaN that stays one isn't."""
    return not torch.equal(before.nan_to_num(), after.nan_to_num())


@torch.no_grad()
def loss_adds_up(model: nn.Module, batches: Sequence[Batch], full_batch: Batch, task: Task, tolerance: float) -> bool:
    """Say whether the window's summed loss is the sum of the micro-batches' on the same outputs."""
    made = copy.deepcopy(model)(full_batch.inputs)
    parts = torch.split(made, [len(batch.inputs) for batch in batches])
    total = float(task.loss_sum(made, full_batch.targets, *full_batch.mix_arguments))
    added = sum(float(task.loss_sum(o, b.targets, *b.mix_arguments)) for o, b in zip(parts, batches, strict=True))
    return abs(added - total) <= tolerance * abs(total)
