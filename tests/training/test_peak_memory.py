"""`peak_memory_bytes` is the run's own, also if the process has held more before."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path

import pytest
import torch

from microstep.training import device as machine
from microstep.training.device import PeakMemory
from tests.conftest import fit
from tests.faults.zygote import Zygote

CPU = torch.device("cpu")
LEAST = ("model=mlp", "epochs=1", "threads=1", "progress=false", "device=cpu")
LARGE, SMALL = "[4096,4096]", "[8]"
SLACK = 80 * 2**20  #: of imports that only the first run of a process makes


def peaks(*runs: Path) -> list[int]:
    return [json.loads((run / "run.json").read_text())["peak_memory_bytes"] for run in runs]


def hold(size: int) -> None:
    """Let so many bytes be resident for a moment."""
    torch.ones(size, dtype=torch.uint8)


ORDERS = [(LARGE, SMALL), pytest.param((SMALL, LARGE), marks=pytest.mark.long)]


@pytest.mark.parametrize("order", ORDERS, ids=["large first", "small first"])
def test_a_run_of_a_sweep_is_measured_as_if_it_were_alone(zygote: Zygote, tmp_path: Path, order) -> None:
    """In one process, whichever runs first: the cost table compares settings by it."""
    for hidden in order:
        words = (*LEAST, f"model.hidden={hidden}", f"hydra.run.dir=alone-{hidden}")
        assert zygote.run("train.py", *words, cwd=tmp_path) == 0
    swept = f"model.hidden={','.join(order)}"
    assert zygote.run("train.py", "-m", *LEAST, swept, "hydra.sweep.subdir=${hydra.job.num}", cwd=tmp_path) == 0
    (sweep,) = (tmp_path / "outputs" / "sweeps").iterdir()
    found = dict(zip(order, peaks(sweep / "0", sweep / "1"), strict=True))
    alone = {hidden: peaks(tmp_path / f"alone-{hidden}")[0] for hidden in order}
    assert alone[LARGE] - alone[SMALL] > 3 * SLACK
    assert {hidden: abs(found[hidden] - alone[hidden]) < SLACK for hidden in order} == {LARGE: True, SMALL: True}


def test_two_trainers_of_a_notebook_are_measured_apart(tmp_path: Path) -> None:
    """The second doesn't count what the first has held."""
    large, small = (fit([*LEAST, f"model.hidden={hidden}"], tmp_path / hidden) for hidden in (LARGE, SMALL))
    assert large.peak_memory_bytes - small.peak_memory_bytes > 3 * SLACK
    assert peaks(tmp_path / LARGE, tmp_path / SMALL) == [large.peak_memory_bytes, small.peak_memory_bytes]


def test_the_peak_is_what_was_held_since_it_was_made() -> None:
    """A gibibyte before it doesn't count; half of one after it does, also once that is given back."""
    hold(2**30)
    memory = PeakMemory(CPU)
    before = memory.bytes()
    hold(2**29)
    assert before is not None
    assert 2**29 - SLACK < memory.bytes() - before < 2**29 + SLACK


def test_a_peak_that_can_not_be_known_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the system can't begin anew, only a new highest peak is certain to be the run's own."""
    PeakMemory(CPU)
    trim = ctypes.CDLL(None).malloc_trim  # an earlier test may have let freed memory stay in the process
    monkeypatch.setattr(machine, "forget_resident_peak", lambda: trim(0) > 1)
    hold(2**29)
    memory = PeakMemory(CPU)
    assert memory.bytes() is None
    hold(2**28)
    assert memory.bytes() is None
    hold(2**30)
    assert memory.bytes() > 2**30


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_measured_by_what_was_allocated_there() -> None:
    """Since it was made; a run on the CPU in the same process counts resident memory, not the GPU's."""
    cuda = torch.device("cuda", torch.cuda.current_device())
    torch.ones(2**30, dtype=torch.uint8, device=cuda)
    memory = PeakMemory(cuda)
    torch.ones(2**20, dtype=torch.uint8, device=cuda)
    assert 2**20 <= memory.bytes() < 2**29
    torch.ones(2**31, dtype=torch.uint8, device=cuda)
    assert PeakMemory(CPU).bytes() != memory.bytes()
