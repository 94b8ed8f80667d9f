"""A program imports what its experiment uses, and that when it is used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import call

#: Torch's compiler and what it brings, and torchvision with its models: seconds and 150 MB.
UNUSED = {"torchvision", "torch._dynamo", "torch._inductor", "torch.distributed.tensor", "sympy", "triton"}
PROBE = """
import sys
from math import prod
from torch import nn

class Probe(nn.Sequential):
    def __init__(self, input_shape, num_classes):
        super().__init__(nn.Flatten(), nn.Linear(prod(input_shape), num_classes))

    def forward(self, images):
        print("forward", file=sys.stderr, flush=True)
        return super().forward(images)
"""


def imported(program: str, *words: str, cwd: Path) -> list[str]:
    """Return what a program has imported, in order, and `forward` for each batch that a model has seen."""
    done = call(program, *words, cwd=cwd, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0, done.stderr[-2000:]
    return re.findall(r"^(?:import time: .*\| +)?(\S+)$", done.stderr, re.MULTILINE)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a model of one's own that tells when it is called."""
    home = tmp_path_factory.mktemp("home")
    (home / "conf" / "model").mkdir(parents=True)
    (home / "conf" / "model" / "probe.yaml").write_text("_target_: probe.Probe\n")
    (home / "probe.py").write_text(PROBE)
    return home


@pytest.fixture(scope="module")
def training(home: Path) -> list[str]:
    return imported("train.py", "model=probe", "epochs=1", "progress=false", "hydra.run.dir=run", cwd=home)


def test_training_imports_neither_torchvision_nor_the_compiler(training):
    """A run on digits never imports torchvision, torch's compiler or what they import."""
    assert UNUSED & {*training} == set()


def test_training_begins_before_the_report_is_imported(training):
    """Matplotlib is imported after the first step."""
    before = training[: training.index("forward")]
    assert "torch" in before
    assert "matplotlib" not in before
    assert "matplotlib" in training


def test_evaluation_imports_neither_torchvision_nor_the_compiler(home, training):
    """The same holds for evaluate.py."""
    assert UNUSED & {*imported("evaluate.py", "run=run", cwd=home)} == set()


def test_statistics_import_neither_torchvision_nor_the_compiler(home):
    """The same holds for compute_stats.py."""
    assert UNUSED & {*imported("compute_stats.py", "dataset=digits", cwd=home)} == set()
