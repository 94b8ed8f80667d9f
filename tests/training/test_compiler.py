"""Optimizers and determinism without torch's compiler."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from tests.conftest import ROOT

OPTIMIZERS = {
    "SGD": {"momentum": 0.9, "nesterov": True},
    "Adam": {"amsgrad": True},
    **{name: {} for name in ("AdamW", "Adagrad", "RMSprop", "NAdam", "RAdam", "Adadelta", "Adamax", "ASGD", "Rprop")},
}


def script(*lines: str) -> str:
    """Run lines of Python in a process of their own, and return what they print."""
    command = [sys.executable, "-c", "\n".join(["import sys, torch", *lines])]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def train(name: str) -> list[float]:
    """Return parameters after three steps of an optimizer, with its state saved and loaded in between."""
    parameter = torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
    optimizer = getattr(torch.optim, name)([parameter], lr=0.1, **OPTIMIZERS[name])
    for _ in range(3):
        optimizer.zero_grad()
        parameter.square().sum().backward()
        optimizer.step()
        optimizer.load_state_dict(optimizer.state_dict())
    return parameter.tolist()


def test_optimizers_step_without_the_compiler():
    """Every optimizer of torch gives the same bits without importing the compiler."""
    done = script(
        "from microstep.training.compiler import skip_compiler_in_optimizers",
        "from tests.training.test_compiler import OPTIMIZERS, train",
        "skip_compiler_in_optimizers()",
        "skip_compiler_in_optimizers()  # as a sweep in one process does",
        "print({name: train(name) for name in OPTIMIZERS}, 'torch._dynamo' in sys.modules)",
    )
    assert done == f"{ {name: train(name) for name in OPTIMIZERS} } False\n"


def test_determinism_needs_no_compiler_and_counts_for_it():
    """Deterministic algorithms are set without importing the compiler, which has the setting when it is imported."""
    done = script(
        "from microstep.training.device import configure_torch",
        "configure_torch(1, True)",
        "print(torch.are_deterministic_algorithms_enabled(), 'torch._inductor' in sys.modules)",
        "import torch._inductor.config as config",
        "print(config.deterministic)",
        "configure_torch(1, False)",
        "print(torch.are_deterministic_algorithms_enabled(), config.deterministic)",
    )
    assert done.splitlines() == ["True False", "True", "False False"]


@pytest.mark.long
def test_the_compiler_still_works():
    """A function that is compiled later may use an optimizer."""
    done = script(
        "from microstep.training.compiler import skip_compiler_in_optimizers",
        "skip_compiler_in_optimizers()",
        "parameter = torch.ones(2, requires_grad=True)",
        "optimizer = torch.optim.SGD([parameter], lr=0.5)",
        "def update():",
        "    optimizer.zero_grad()",
        "    parameter.sum().backward()",
        "    optimizer.step()",
        "torch.compile(update, backend='eager')()",
        "print(parameter.tolist())",
    )
    assert done == "[0.5, 0.5]\n"
