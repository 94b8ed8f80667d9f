"""Model and data of several tips: small_cnn on the first 1437 digits, one thread."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from time import perf_counter

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from microstep.components.model import SmallCNN

CPU = torch.device("cpu")
SAMPLES, CLASSES = 1437, 10
MEAN, STD = 0.3055, 0.3761


def digits() -> tuple[Tensor, Tensor]:
    """Return all digits, normalized (N × 1 × 8 × 8), and their labels."""
    found = load_digits()
    pixels = torch.tensor(found.images[:, None], dtype=torch.float32) / 16
    return (pixels - MEAN) / STD, torch.tensor(found.target)


def network(shape: tuple[int, int, int] = (1, 8, 8)) -> nn.Module:
    """Return a small network, always with the same weights."""
    torch.manual_seed(0)
    return SmallCNN(shape, CLASSES)


def sgd(net: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(net.parameters(), lr=0.03, momentum=0.9, nesterov=True)


def micro_batches(epoch: int, size: int) -> tuple[Tensor, ...]:
    """Return an epoch's rows, shuffled, in parts of a size; the last is shorter."""
    return torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(epoch)).split(size)


def flat(tensors: Iterator[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().double().flatten() for tensor in tensors])


def gradient(net: nn.Module) -> Tensor:
    return flat(p.grad for p in net.parameters() if p.grad is not None)


def apart(one: Tensor, other: Tensor) -> float:
    """Return the relative difference of two vectors from the second."""
    return ((one - other).norm() / other.norm()).item()


def timed(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


def in_turn(contestants: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return seconds by contestant, taking turns; each has warmed up."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, work in contestants.items():
            seconds = timed(work)
            times[name] += [seconds] if number else []
    return times


def ratio(times: list[float], base: list[float]) -> float:
    """Return the median of the pairs' ratios."""
    return statistics.median(one / other for one, other in zip(times, base, strict=True))
