"""Computes the gradient of a real window, as one batch and as micro-batches."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from microstep.components.precision import TorchPrecision
from microstep.components.step.standard import add_gradient
from microstep.diagnostics.accumulation.loops import AccumulationLoop, WindowShape
from microstep.training.loaders import Loaders
from microstep.types.data import Batch, LoadedWindow, Mix
from microstep.types.protocols import Precision, Task, Transform

CHECKED_EPOCH = 1


@dataclass(frozen=True)
class WindowGradient:
    """The gradient of a window, with the measured weight of each sample."""

    gradients: dict[str, Tensor]  #: by parameter
    sample_weights: Tensor  #: N
    buffers: dict[str, Tensor]  #: of the model, after the window


def compute_window_gradient(
    model: nn.Module,
    batches: Sequence[Batch],
    weight: float,
    loop: AccumulationLoop,
    task: Task,
    max_grad_norm: float | None,
    transform: Transform | None = None,
) -> WindowGradient:
    """Return the gradient of a window, computed by the code that training uses. `model` keeps it.

    The weight of a sample is measured: a number is added to each sample's loss. It takes part in the backward passes,
    scaling and clipping like a parameter, so its gradient is the weight of the sample. Model and batches are in fp64
    on one device; positions are consecutive. `weight` is the sum of all sample weights.
    """
    device, last, first = batches[0].inputs.device, len(batches) - 1, int(batches[0].positions[0])
    shifts = torch.zeros(sum(len(batch.positions) for batch in batches), dtype=torch.float64, requires_grad=True)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    clipped = [*parameters.values(), shifts]
    scaler = GradScaler(device.type, enabled=loop.doubles_scale)
    precision = TorchPrecision("fp64", "check", device, torch.float64, scaler=scaler)
    optimizer = torch.optim.SGD(clipped)
    optimizer.zero_grad()
    for number, batch in enumerate(batches):
        if loop.doubles_scale and number == last:
            scaler.update(2 * scaler.get_scale())
        factor, shifted = loop.factor(number), ShiftedTask(task, shifts, batch.positions - first)
        divisor = weight / factor if factor else math.inf
        add_gradient(model, batch, divisor, precision, cast(Task, shifted))  # only calls loss_sum
        if loop.clips_each and number < last:
            clip_gradient(clipped, max_grad_norm)
    scaler.unscale_(optimizer)
    if transform is not None:  # the sample weights are those before it
        norm = get_total_norm([p.grad for p in parameters.values() if p.grad is not None]).item()
        copy.deepcopy(transform)(list(parameters.values()), norm)
    clip_gradient(clipped, max_grad_norm)
    return collect_gradient(model, parameters, shifts)


@dataclass(frozen=True)
class ShiftedTask:
    """A task that adds a number to each sample's loss. The gradient of the model does not change."""

    task: Task
    shifts: Tensor  #: one number a sample of the window
    positions: Tensor  #: of the batch's samples in `shifts`

    def loss_sum(self, outputs: Tensor, targets: Tensor, *mix: Mix) -> Tensor:
        shift = (self.shifts[self.positions.cpu()] * get_sample_weights(self.task, targets, *mix)).sum()
        return self.task.loss_sum(outputs, targets, *mix) + shift.to(outputs.device)


def get_sample_weights(task: Task, targets: Tensor, *mix: Mix) -> Tensor:
    """Return the weight of each sample (N, float64, on the CPU); of mixed samples, the interpolated weight."""
    weight = task.weight(targets).cpu().double()
    for one in mix:
        weight = torch.lerp(task.weight(one.targets).cpu().double(), weight, one.share.cpu().double())
    return weight


def clip_gradient(tensors: Sequence[Tensor], max_grad_norm: float | None) -> None:
    """Clip gradients by the norm of all but the last one, which holds the sample weights and is scaled, too."""
    total = get_total_norm([p.grad for p in tensors[:-1] if p.grad is not None])
    if max_grad_norm is not None and total > max_grad_norm:
        clip_grads_with_norm_(list(tensors), max_grad_norm, total)


def collect_gradient(model: nn.Module, parameters: dict[str, nn.Parameter], shifts: Tensor) -> WindowGradient:
    gradients = {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in parameters.items()}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    assert shifts.grad is not None
    return WindowGradient(gradients, shifts.grad.clone(), buffers)


@dataclass(frozen=True)
class CheckedWindow:
    """A window with its data."""

    name: str
    number: int  #: in the epoch, from 0
    batches: list[Batch]
    shape: WindowShape

    @cached_property
    def full_batch(self) -> Batch:
        return concatenate_batches(self.batches)


def load_checked_windows(loaders: Loaders, task: Task, precision: Precision, steps: int) -> list[CheckedWindow]:
    """Return the first of an epoch's `steps` windows, and the last one if its micro-batches have other sizes."""
    head = make_checked_window("first window", next(loaders.train(CHECKED_EPOCH)), task, precision)
    last = next(loaders.train(CHECKED_EPOCH, first=steps - 1))
    tail = make_checked_window("last window", last, task, precision, len(head.batches))
    return [head] if tail.shape.sizes == head.shape.sizes else [head, tail]


def make_checked_window(
    name: str, window: LoadedWindow, task: Task, precision: Precision, full_size: int | None = None
) -> CheckedWindow:
    batches = [precision.cast(batch) for batch in window.batches]
    weights = [get_sample_weights(task, batch.targets, *batch.mix_arguments) for batch in batches]
    sums = tuple(float(each.sum()) for each in weights)
    shape = WindowShape(tuple(map(len, weights)), sums, full_size or len(batches))
    return CheckedWindow(name, window.number, batches, shape)


def concatenate_batches(batches: Sequence[Batch]) -> Batch:
    fields = ("inputs", "targets", "positions", "indices")
    inputs, targets, positions, indices = (torch.cat([getattr(batch, name) for batch in batches]) for name in fields)
    mixes = [batch.mix for batch in batches if batch.mix is not None]
    mix = Mix(torch.cat([m.targets for m in mixes]), torch.cat([m.share for m in mixes])) if mixes else None
    return Batch(inputs, targets, positions, indices, mix)
