"""A model that ends its run in one of several ways until a file exists."""

import os
import signal
import sys
import time
from pathlib import Path

from torch import Tensor, nn

from microstep.components.model import mlp
from microstep.config.hydra_job import get_run_directory
from tests.sweep.leaks import leak_all


def unlucky(input_shape: tuple[int, ...], num_classes: int, train_targets: Tensor, fate: str) -> nn.Module:
    """Return a small model, unless the run is to end while it is built."""
    if not Path(os.environ["LUCK"]).exists():
        meet(fate, train_targets)
        if fate == "dies":
            return Dying(*mlp(input_shape, num_classes, hidden=(8,)))
    return mlp(input_shape, num_classes, hidden=(8,))


class Dying(nn.Sequential):
    """Layers whose process is killed at the 18th micro-batch."""

    calls = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == 18:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(inputs)


def meet(fate: str, shared: Tensor) -> None:
    """End this process or its run in the configured way."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        (get_run_directory() / "gpu.txt").write_text(os.environ["CUDA_VISIBLE_DEVICES"])
    if fate == "fine":
        time.sleep(float(os.environ.get("DELAY", "0")))
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
    if fate == "takes_its_launcher_along":
        os.kill(os.getppid(), signal.SIGKILL)
        signal.pause()
