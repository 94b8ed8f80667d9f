"""`compile=true` compiles the training forward pass: the same run after a resume, and the plain model elsewhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from microstep.config.compose import compose
from microstep.training.build import build_trainer
from microstep.training.compiler import CompileTimer, compile_model
from microstep.types.data import LoadedWindow
from tests.conftest import ROOT, call, error_of, fit
from tests.faults.interruptions import stop_at
from tests.faults.runs import differences, state_of

COMMON = ("compile=true", "checkpoint.every_steps=2", "log_every_steps=3", "epochs=2")
MLP = ("model=mlp", "model.hidden=[4]", "model.dropout=0.2")
RUNS = {
    "batch norm, amp, accum": ("model.width=4", "model.norm=batch", "precision=amp", "accum=3", "batch_size=25"),
    "sam, ghost norm, mixup": ("model.width=4", "model.norm=ghost", "step=sam", "augment=mixup"),
    "fp16, lookahead, ema": (*MLP, "precision=fp16", "step=lookahead", "average=ema", "accum=2", "augment=cutmix"),
}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):
    """Keep what is compiled in a directory of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))
        yield


def lose_and_resume(run: Path, windows: int, *words: str, **environment: str) -> str:
    """Lose a run after some windows, without a last save, and finish it in a new process; return what that prints."""
    stop_at(build_trainer(compose(["threads=1", "progress=false", *words]), run), windows, lost=True)
    done = call("train.py", f"resume={run}", cwd=run.parent, **environment)
    assert done.returncode == 0, done.stderr
    assert "not the same bit for bit" not in done.stderr
    return done.stdout


def test_a_resumed_run_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    """It is lost in mid-epoch and finished by a new process; the times of compiled windows are told."""
    words = (*MLP, *COMMON, "batch_size=479")
    fit(words, tmp_path / "whole")
    out = lose_and_resume(tmp_path / "run", 4, *words)
    assert "it is the same run, bit for bit" in out
    assert " s for the first window of each size (1), " in out
    assert differences(tmp_path / "run", tmp_path / "whole") == []
    compiling = json.loads((tmp_path / "whole/run.json").read_text())["compiling"]
    assert compiling["first_seconds"] > 10 * compiling["later_seconds"] > 0


@pytest.mark.long
@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("is_cold", [False, True])
def test_every_part_works_compiled(tmp_path: Path, name: str, is_cold: bool) -> None:
    """Ragged windows, dropout, running statistics, two passes and mixing; with and without what was compiled before."""
    words = (*COMMON, *RUNS[name])
    fit(words, tmp_path / "whole")
    environment = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cold"), "PYTHONHASHSEED": "7"} if is_cold else {}
    lose_and_resume(tmp_path / "run", 17, *words, **environment)
    assert differences(tmp_path / "run", tmp_path / "whole") == []


@pytest.mark.long
def test_helpers_compile_too(tmp_path: Path) -> None:
    """Two processes that compile end with weights as close to those of one process as rounding allows."""
    words = (*MLP[:2], "compile=true", "precision=fp64", "steps=30", "batch_size=32", "strategy=ddp", "threads=1")
    for processes in ("1", "2"):
        run = (f"strategy.run_on={processes}", f"hydra.run.dir={processes}")
        done = call("train.py", *words, "strategy.processes=2", *run, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    one, two = (state_of(tmp_path / name, "last")["model"] for name in "12")
    assert all(torch.allclose(one[key], two[key], rtol=1e-9, atol=1e-12) for key in one)


@pytest.mark.long
def test_it_trains_the_plain_model(tmp_path: Path) -> None:
    """Checkpoints have its names, evaluate.py its metrics, and another run its weights to rounding."""
    words = ("precision=fp64", "model.width=4", "epochs=1")
    for name, value in (("plain", "false"), ("run", "true")):
        fit([*words, f"compile={value}"], tmp_path / name)
    one, other = (state_of(tmp_path / name, "last")["model"] for name in ("plain", "run"))
    assert list(one) == list(other)
    assert all(torch.allclose(one[key], other[key], rtol=1e-9, atol=1e-12) for key in one)
    done = call("evaluate.py", "run=run", "checkpoint=best", "split=val", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "torch._dynamo" not in done.stderr


def test_each_size_has_a_graph_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any number of sizes is compiled, in any order, also by the second run of a process."""
    from torch._dynamo.utils import counters

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # dynamo alone decides it
    for _ in range(2):
        compiled = compile_model(model := nn.Linear(2, 3))
        counters.clear()
        for size in (9, 4, *range(2, 14), 9, 4):
            assert compiled(torch.zeros(size, 2)).shape == (size, 3)
        assert counters["stats"]["unique_graphs"] == 12
        assert not counters["unimplemented"]
        assert compiled.get_parameter("_orig_mod.weight") is model.weight


def test_first_windows_are_told_from_later_ones() -> None:
    """The first window of each size counts as compiling, and the median is that of the others."""
    timer = CompileTimer()
    for window in timer([LoadedWindow(number, size, 1.0, []) for number, size in enumerate((64, 64, 5, 64, 5))]):
        time.sleep(0.1 if window.number in (0, 2) else 0.001)
    cost = timer.cost()
    assert cost["first_windows"] == 2
    assert cost["later_seconds"] < 0.1 < 0.2 <= cost["first_seconds"]


@pytest.mark.long
def test_without_a_compiler_it_is_one_line(tmp_path: Path) -> None:
    """A machine without g++ gets a line with a way out, and no run directory."""
    done = call("train.py", *MLP, "compile=true", "hydra.run.dir=run", cwd=tmp_path, PATH="/nowhere", CXX="")
    assert done.returncode == 2
    error = error_of(done)
    assert error.startswith("error: compile=true: torch can't compile the model (")
    assert error.endswith("; install g++ and the headers of Python, or leave it out")
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_ctrl_c_while_it_compiles_stops_the_run(tmp_path: Path) -> None:
    """Ctrl-C reaches g++, too, whose end is no error of the model: exit code 130."""
    command = [sys.executable, str(ROOT / "train.py"), *MLP, "compile=true", "hydra.run.dir=run"]
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cold"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not children_named("cc1plus", process.pid):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert error.splitlines()[-1].startswith("error: stopped by SIGINT")


def children_named(name: str, session: int) -> bool:
    done = subprocess.run(["ps", "-s", str(session), "-o", "comm="], capture_output=True, text=True)
    return name in done.stdout.split()
