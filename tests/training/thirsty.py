"""Models that run out of memory."""

import os
import resource
from collections.abc import Callable, Collection
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import nn

from microstep.components.model import SmallCNN


def plant(model: nn.Module, fails: Collection[int], error: Callable[[], BaseException]) -> None:
    """Let some of a model's calls in training fail, which are counted from 0."""
    calls = count()

    def fail(module: nn.Module, _inputs: object) -> None:
        if module.training and next(calls) in fails:
            raise error()

    model.register_forward_pre_hook(fail)


def exhausted() -> torch.OutOfMemoryError:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def thirsty_cnn(num_classes: int, input_shape: tuple[int, int, int], **settings: Any) -> nn.Module:
    """Return a model that runs out of memory once, in the second process of a run."""
    model = SmallCNN(input_shape, num_classes, **settings)
    if os.environ.get("RANK", "0") == "1":
        plant(model, {1}, exhausted)
    return model


def limited_cnn(num_classes: int, input_shape: tuple[int, int, int], **settings: Any) -> nn.Module:
    """Return a model whose forward and backward passes in training have $MEBIBYTES of address space to take.

    Nothing else of the run is limited: a thread that saves a checkpoint needs a stack.
    """
    model = SmallCNN(input_shape, num_classes, **settings)
    if mebibytes := os.environ.get("MEBIBYTES"):
        model.register_forward_pre_hook(lambda module, _inputs: limit(int(mebibytes)) if module.training else None)
        next(model.parameters()).register_hook(lift)  # its gradient is the last
    return model


def limit(mebibytes: int) -> None:
    most = taken_at_first() + mebibytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))


def lift(_gradient: torch.Tensor) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@cache
def taken_at_first() -> int:
    return int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
