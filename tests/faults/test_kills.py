"""After kill -9 at random moments, a run that is resumed until it finishes equals the uninterrupted run bit for bit."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.faults.runs import differences, manifest_of
from tests.faults.zygote import Zygote

CONF = Path(__file__).parent / "conf"
KILLS = 8  #: of each run, in `make test-all`: 80 in all
SHORT = {"two workers": 3, "lookahead and ema": 1}  #: runs that `make test` kills, and how often
COMMON = ("threads=1", "progress=false", "checkpoint.every_steps=4", "log_every_steps=3", "augment=crop_flip")
MLP = ("model=mlp", "model.dropout=0.2", "batch_size=32")
STREAMED = ("dataset.resident=false", "epochs=4")
RUNS = {
    "fp32": (*MLP, "epochs=8"),
    "bf16": (*MLP, "precision=bf16", "epochs=6"),
    "fp16 with a scaler": (
        *MLP,
        "precision=fp16",
        "precision.init_scale=1e7",
        "precision.growth_interval=9",
        "epochs=5",
    ),
    "accum": (*MLP, "accum=3", "batch_size=10", "epochs=6", "optimizer=adamw", "scheduler=onecycle"),
    "no workers": (*MLP, *STREAMED, "num_workers=0", "augment=randaugment"),
    "two workers": (*MLP, *STREAMED, "num_workers=2"),
    "sam and cutmix": (*MLP, "step=sam", "augment=cutmix", "epochs=5", "task.class_weights=balanced"),
    "lookahead and ema": (*MLP, "step=lookahead", "average=ema", "epochs=3"),
    "agc and swa": (
        *("--config-dir", str(CONF), "model=normed", "gradient=agc", "average=swa", "average.start=0.3"),
        *("average.bn_samples=100", "epochs=5"),
    ),
    "batch norm": ("--config-dir", str(CONF), "model=normed", "precision=bf16", "epochs=5", "accum=2"),
}
CASES = [*SHORT.items(), *(pytest.param(name, KILLS, marks=pytest.mark.long) for name in RUNS)]


@pytest.mark.parametrize(("name", "kills"), CASES)
def test_what_is_killed_and_resumed_is_the_same_run(zygote: Zygote, tmp_path: Path, name: str, kills: int) -> None:
    """Weights, optimizer, reports, metrics.csv and TensorBoard scalars are those of an uninterrupted run."""
    words = list({word.split("=")[0]: word for word in (*COMMON, *RUNS[name])}.values())  # the last of a key counts
    began = time.monotonic()
    assert zygote.run("train.py", *words, "hydra.run.dir=whole", cwd=tmp_path) == 0, said(tmp_path)
    seconds, moments, killed, number = time.monotonic() - began, random.Random(name), 0, 0
    while killed < kills:  # of runs at work: where one was finished before it could be killed, another is begun
        moment = moments.uniform(0.25, 0.65) * seconds
        code = killed_after(moment, zygote, tmp_path, *words, f"hydra.run.dir=run{number}")
        killed, number = killed + (code != 0), number + (code == 0)
        seconds *= 1 if code else 0.8  # the machine was busier when it was measured
    assert zygote.run("train.py", *words, f"hydra.run.dir=run{number}", "resume=auto", cwd=tmp_path) == 0
    for run in tmp_path.glob("run*"):
        assert differences(run, tmp_path / "whole") == []
        assert not list(run.rglob(".*.tmp"))
        kept = {entry["file"] for entry in manifest_of(run).values()}
        assert {file.name for file in run.glob("checkpoints/*.pt")} == kept


def killed_after(seconds: float, zygote: Zygote, home: Path, *words: str, **environment: str) -> int:
    """Start or resume a run and kill it after a while; return its exit code: 0 if it had finished before."""
    pid = zygote.start("train.py", *words, "resume=auto", cwd=home, **environment)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)  # nobody has waited for it yet: the pid is its own in any case
    code = zygote.wait(pid)
    assert code in (0, -signal.SIGKILL), said(home)
    return code


def said(directory: Path) -> str:
    return (directory / "output.txt").read_text()
