"""Programs and models that run out of memory."""

import os
import resource
import sys
from collections.abc import Callable, Collection
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import nn

from microstep.components.model import SmallCNN
from microstep.sweep.launchers.worker import import_run_modules


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


def main(mebibytes: str, *words: str) -> None:
    """Run train.py in that much memory besides what it takes to start."""
    from microstep.cli.programs import train

    import_run_modules()  # later, they would not fit
    torch.zeros(8, 8) @ torch.zeros(8, 8)
    taken = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
    limit = taken + int(mebibytes) * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    train(list(words))


if __name__ == "__main__":
    main(*sys.argv[1:])
