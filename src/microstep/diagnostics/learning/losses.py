"""Losses to compare that of a model with, for any task: of the best outputs, of constant ones, of permuted targets."""

from collections.abc import Callable
from dataclasses import dataclass
from math import nan

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from microstep.components.task.known_targets import as_columns
from microstep.types.protocols import Task

FIT_STEPS, FIT_RATE = 300, 0.3  #: of Adam, over outputs that are free
PERMUTATIONS = 200
NEIGHBORS, POOLED = 5, 256  #: neighbors of a sample, by at most that many values a channel

Samples = tuple[Tensor, Tensor]  #: inputs and targets


def mean_loss(task: Task, outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the weighted mean loss of N × … outputs and targets (0-d)."""
    return task.loss_sum(outputs, targets) / task.weight(targets).sum().item()


def least_loss(task: Task, targets: Tensor, shape: torch.Size, constant: bool = False) -> float:
    """Return the least mean loss that outputs of a shape can have; if `constant`, the same outputs for each sample."""
    return mean_loss(task, fit_outputs(task, targets, shape, constant), targets).item()


def fit_outputs(task: Task, targets: Tensor, shape: torch.Size, constant: bool = False) -> Tensor:
    """Return outputs with the least mean loss: of a shape, or, if `constant`, one row."""
    rows = (1, *shape[1:]) if constant else shape
    free = torch.zeros(rows, device=targets.device, requires_grad=True)
    optimizer = torch.optim.Adam([free], lr=FIT_RATE)
    for _ in range(FIT_STEPS):
        optimizer.zero_grad()
        mean_loss(task, free.expand(shape), targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return free.detach().expand(shape)


@dataclass(frozen=True)
class LossFacts:
    """Losses of some outputs that tell what a task prefers, for the targets of some samples."""

    chance: float  #: mean loss of outputs that are all 0
    least: float  #: the least that any outputs have
    doubled: float  #: of these outputs, doubled
    one_hot: float  #: of outputs that are 1 for the right class, else 0; NaN if targets are not classes
    right: float  #: share of the samples for which the outputs of least loss decide for the right class; or NaN

    @property
    def is_unbounded(self) -> bool:
        return self.doubled < 1.5 * self.least < 0

    @property
    def takes_probabilities(self) -> bool:
        return not self.one_hot > self.least + 0.1 * (self.chance - self.least)


def examine_loss(task: Task, targets: Tensor, shape: torch.Size) -> LossFacts:
    best, one_hot, right = fit_outputs(task, targets, shape), nan, nan
    if not targets.is_floating_point():
        one_hot = mean_loss(task, F.one_hot(targets, shape[1]).to(best), targets).item()
        right = best.argmax(1).eq(targets).float().mean().item()
    chance, least, doubled = (mean_loss(task, factor * best, targets).item() for factor in (0, 1, 2))
    return LossFacts(chance, least, doubled, one_hot, right)


def measure_relation(task: Task, outputs: Tensor, targets: Tensor) -> float:
    """Return by how many standard deviations the loss is below that of the same outputs for permuted targets."""
    return permutation_score(lambda found: mean_loss(task, outputs, found), targets)


def measure_neighbors(known: Samples, asked: Samples) -> float:
    """Return by how many standard deviations targets are closer to those of similar inputs than permuted ones.

    It needs no training: inputs are compared value by value, after pooling.

    Args:
        known: inputs and targets of the neighbors.
        asked: inputs and targets that are compared with those of their neighbors; of `known` itself, with the others.
    """
    values, is_same = pool(known[0]), known is asked
    found = NearestNeighbors(n_neighbors=min(NEIGHBORS + is_same, len(values))).fit(values)
    nearest = torch.from_numpy(found.kneighbors(pool(asked[0]), return_distance=False))[:, int(is_same) :]
    columns = to_columns(torch.cat([known[1], asked[1]]).cpu())
    expected, given = columns[: len(values)][nearest].mean(1), columns[len(values) :]
    return permutation_score(lambda targets: (expected - targets).square().mean(), given)


def permutation_score(loss: Callable[[Tensor], Tensor], targets: Tensor) -> float:
    """Return (mean − loss) ÷ standard deviation, both over permutations of the targets; 0 if it is not defined."""
    generator = torch.Generator().manual_seed(0)
    orders = [torch.randperm(len(targets), generator=generator) for _ in range(PERMUTATIONS)]
    permuted = torch.stack([loss(targets[order.to(targets.device)]).detach() for order in orders]).double()
    return ((permuted.mean() - loss(targets).detach()) / permuted.std()).nan_to_num(0, 0, 0).item()


def to_columns(targets: Tensor) -> Tensor:
    """Return classes as N × classes of 0 and 1, numbers as standardized columns, unknown ones as 0."""
    if not targets.is_floating_point():
        return F.one_hot(targets).float()
    columns = as_columns(targets)
    return ((columns - columns.nanmean(0)) / (columns - columns.nanmean(0)).square().nanmean(0).sqrt()).nan_to_num(0)


def pool(inputs: Tensor) -> np.ndarray:
    """Return each input as a row of numbers; an image with at most `POOLED` pixels."""
    values, side = inputs.float().nan_to_num(), int(POOLED**0.5)
    if inputs.ndim == 4 and inputs.shape[2] * inputs.shape[3] > POOLED:
        values = F.adaptive_avg_pool2d(values, (min(side, inputs.shape[2]), min(side, inputs.shape[3])))
    return np.asarray(values.flatten(1).cpu())
