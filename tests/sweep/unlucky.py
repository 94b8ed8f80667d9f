"""A model that ends its run in one of several ways until a file exists."""

import os
import signal
import sys
from pathlib import Path

from torch import Tensor, nn

from microstep.components.model import mlp
from tests.sweep.leaks import leak_all


def unlucky(input_shape: tuple[int, ...], num_classes: int, train_targets: Tensor, fate: str) -> nn.Module:
    """Return a small model, unless the run is to end while it is built."""
    if not Path(os.environ["LUCK"]).exists():
        meet(fate, train_targets)
    return mlp(input_shape, num_classes, hidden=(8,))


def meet(fate: str, shared: Tensor) -> None:
    """End this process or its run in the configured way."""
    if fate == "leaks":
        shared.zero_()
        leak_all()
        raise RuntimeError("planted, after leaks")
    if fate == "raises":
        raise RuntimeError("planted")
    if fate == "exhausts":
        raise MemoryError("planted")
    if fate == "leaves":
        sys.exit(3)
    if fate == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if fate == "takes_its_launcher_along":
        os.kill(os.getppid(), signal.SIGKILL)
        signal.pause()
