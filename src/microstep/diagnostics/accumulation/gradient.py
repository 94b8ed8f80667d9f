"""Computes the gradient of a real window, as one batch and as micro-batches."""

from __future__ import annotations

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
from microstep.types.protocols import Precision, Task


@dataclass(frozen=True)
class WindowGradient:
    """A window's gradient, and how it came about."""

    gradients: dict[str, Tensor]  #: by parameter
    weights: Tensor  #: N: each sample's weight in it
    buffers: dict[str, Tensor]  #: the model's, afterwards


def compute_window_gradient(
    model: nn.Module,
    batches: Sequence[Batch],
    weight: float,
    loop: AccumulationLoop,
    task: Task,
    max_grad_norm: float | None,
) -> WindowGradient:
    """Return the gradient of a window, by the very code that training uses; `model` is left with it.

    A sample's weight is measured, not computed: each loss is shifted by a number that takes part in the backward
    passes, the scaling and the clipping like any parameter, so that its gradient is what the sample weighs.

    Args:
        model: in fp64, in the mode to be looked at.
        batches: in fp64, on the model's device; their positions begin anywhere and follow each other.
        weight: the sum of all samples' weights.
        max_grad_norm: the norm to clip to, once at the end or as the loop does; None for no clipping.
    """
    device, last = batches[0].inputs.device, len(batches) - 1
    shifts = torch.zeros(sum(len(batch.positions) for batch in batches), dtype=torch.float64, requires_grad=True)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    hold, first = [*parameters.values(), shifts], int(batches[0].positions[0])
    scaler = GradScaler(device.type, enabled=loop.doubles)
    precision = TorchPrecision("fp64", "check", device, torch.float64, scaler=scaler)
    optimizer = torch.optim.SGD(hold)
    optimizer.zero_grad()
    for number, batch in enumerate(batches):
        if loop.doubles and number == last:
            scaler.update(2 * scaler.get_scale())
        share, shifted = loss_divisor(weight, loop.factor(number)), ShiftedTask(task, shifts, batch.positions - first)
        add_gradient(model, batch, share, precision, cast(Task, shifted), None)  # a step asks for the loss alone
        if loop.clips and number < last:
            clip_gradient(hold, max_grad_norm)
    scaler.unscale_(optimizer)
    clip_gradient(hold, max_grad_norm)
    return collect_gradient(model, parameters, shifts)


def loss_divisor(weight: float, factor: float) -> float:
    """Return what a micro-batch's summed loss is divided by."""
    return weight / factor if factor else math.inf


@dataclass(frozen=True)
class ShiftedTask:
    """A task whose losses are each shifted by a number of its sample's, which changes no gradient of the model."""

    task: Task
    shifts: Tensor  #: of the window's samples
    places: Tensor  #: of the batch's samples among these

    def loss_sum(self, outputs: Tensor, targets: Tensor, *mix: Mix) -> Tensor:
        """Return the task's loss; each sample's shift counts for as much as its loss does."""
        shift = (self.shifts[self.places.cpu()] * get_sample_weights(self.task, targets, *mix)).sum()
        return self.task.loss_sum(outputs, targets, *mix) + shift.to(outputs.device)


def get_sample_weights(task: Task, targets: Tensor, *mix: Mix) -> Tensor:
    """Return what each sample weighs (N, float64, on the CPU), also where it is mixed with another."""
    weight = task.weight(targets).cpu().double()
    for one in mix:
        weight = torch.lerp(task.weight(one.targets).cpu().double(), weight, one.share.cpu().double())
    return weight


def clip_gradient(hold: Sequence[Tensor], max_grad_norm: float | None) -> None:
    """Clip the gradient as training does, by the model's norm alone; the shifts, which come last, with it."""
    total = get_total_norm([p.grad for p in hold[:-1] if p.grad is not None])
    if max_grad_norm is not None and total > max_grad_norm:
        clip_grads_with_norm_(list(hold), max_grad_norm, total)


def collect_gradient(model: nn.Module, parameters: dict[str, nn.Parameter], shifts: Tensor) -> WindowGradient:
    """Return what the model is left with."""
    gradients = {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in parameters.items()}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    assert shifts.grad is not None
    return WindowGradient(gradients, shifts.grad.clone(), buffers)


CHECKED_EPOCH = 1


@dataclass(frozen=True)
class CheckedWindow:
    """A window with its data."""

    name: str
    number: int  #: counted from 0 within the epoch
    batches: list[Batch]
    shape: WindowShape

    @cached_property
    def whole(self) -> Batch:
        """All of it as one batch."""
        return concatenate_batches(self.batches)


def load_checked_windows(loaders: Loaders, task: Task, precision: Precision, steps: int) -> list[CheckedWindow]:
    """Return the epoch's first window, and its last where that is cut otherwise.

    Args:
        precision: casts the batches.
        steps: windows an epoch.
    """
    first = next(loaders.train(CHECKED_EPOCH))
    batches = [precision.cast(batch) for batch in first.batches]
    found = [make_checked_window("first window", first, batches, task, len(batches))]
    last = next(loaders.train(CHECKED_EPOCH, first=steps - 1))
    tail = make_checked_window(
        "last window", last, [precision.cast(batch) for batch in last.batches], task, len(batches)
    )
    return found if tail.shape.sizes == found[0].shape.sizes else [*found, tail]


def make_checked_window(name: str, window: LoadedWindow, batches: list[Batch], task: Task, full: int) -> CheckedWindow:
    """Return a loaded window."""
    weights = [get_sample_weights(task, batch.targets, *batch.mix_arguments) for batch in batches]
    shape = WindowShape(tuple(map(len, weights)), tuple(float(each.sum()) for each in weights), full)
    return CheckedWindow(name, window.number, batches, shape)


def concatenate_batches(batches: Sequence[Batch]) -> Batch:
    """Return consecutive batches as one."""
    fields = ("inputs", "targets", "positions", "indices")
    tensors = {name: torch.cat([getattr(batch, name) for batch in batches]) for name in fields}
    mixes = [batch.mix for batch in batches if batch.mix is not None]
    mix = Mix(torch.cat([m.targets for m in mixes]), torch.cat([m.share for m in mixes])) if mixes else None
    return Batch(**tensors, mix=mix)
