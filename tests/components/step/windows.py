"""Windows of random images, split into micro-batches of any sizes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from microstep.components.precision import full
from microstep.components.step import SAMStep, StandardStep
from microstep.components.task import Classification
from microstep.types.data import Batch

CPU = torch.device("cpu")
CLASSES = 4
LABELS = torch.arange(CLASSES)


def samples(count: int) -> tuple[Tensor, Tensor]:
    """Return images and labels."""
    generator = torch.Generator().manual_seed(count)
    inputs = torch.randn(count, 1, 6, 6, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(0, CLASSES, (count,), generator=generator)


def cut(inputs: Tensor, targets: Tensor, sizes: Sequence[int]) -> list[Batch]:
    """Return consecutive batches of these sizes."""
    ends = list(accumulate(sizes))
    rows = [torch.arange(end - size, end) for size, end in zip(sizes, ends, strict=True)]
    return [Batch(inputs[r], targets[r], r, r) for r in rows]


def model() -> nn.Module:
    """Return a small network in fp64, always with the same weights."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(48, CLASSES))
    return net.double()


def task(weights: Sequence[float] | None = None, smoothing: float = 0.0) -> Classification:
    return Classification("abcd", LABELS, CPU, weights, smoothing)


def stepped(
    sizes: Sequence[int], job: Classification, clip: float | None = None, steps: int = 2, rho: float = 0
) -> Tensor:
    """Return the weights after some steps over one window, split into micro-batches of these sizes."""
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5, momentum=0.9)
    precision = full(CPU, "float64")
    take = (
        SAMStep(precision, job, job.metrics(), clip, rho) if rho else StandardStep(precision, job, job.metrics(), clip)
    )
    inputs, targets = samples(sum(sizes))
    weight = job.weight(targets).sum().item()
    for _ in range(steps):
        take(net, optimizer, cut(inputs, targets, sizes), weight)
    return flat(net)


def reference(count: int, job: Classification, clip: float | None = None, steps: int = 2) -> Tensor:
    """Return the weights after the same steps written by hand, over the whole window at once."""
    net = copy.deepcopy(model())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5, momentum=0.9)
    inputs, targets = samples(count)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(net(inputs), targets, job.class_weights, label_smoothing=job.label_smoothing).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(net.parameters(), clip)
        optimizer.step()
    return flat(net)


def flat(net: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def distance(one: Tensor, other: Tensor) -> float:
    """Return the relative difference of two weight vectors."""
    return ((one - other).norm() / other.norm()).item()
