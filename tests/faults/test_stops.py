"""SIGTERM, SIGINT and SIGUSR1: the window is finished, a checkpoint written, and a resume ends with the same bits."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.runs import differences, manifest_of
from tests.faults.zygote import ROOT, Zygote

CONF = ("--config-dir", str(Path(__file__).parent / "conf"))
AGAIN = shlex.join([str(ROOT / "train.py"), *CONF, "resume=run"])
WORDS = (*CONF, "model=signalled", "threads=1", "progress=false", "epochs=3", "batch_size=16", "accum=4", "device=cpu")
WINDOWS = 23  #: an epoch: 1437 samples in windows of 64, each of four micro-batches but the last, which has two
STREAMED = ("dataset.resident=false", "num_workers=2", "augment=crop_flip", "progress=false", "threads=1", "model=mlp")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


@pytest.fixture(scope="module")
def whole(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that no signal comes to."""
    home = tmp_path_factory.mktemp("whole")
    assert zygote.run("train.py", *WORDS, "hydra.run.dir=run", cwd=home) == 0, said(home)
    return home / "run"


def said(home: Path) -> str:
    return (home / "output.txt").read_text()


def record_of(run: Path) -> dict:
    return json.loads((run / "run.json").read_text())


def stopped(zygote: Zygote, home: Path, number: int, at: int, when: str = "training") -> Path:
    """Return a run that got a signal at its n-th micro-batch, after which it has ended as it should."""
    signalled = f"{int(number)} {at} {when} 1"
    code = zygote.run("train.py", *WORDS, "hydra.run.dir=run", cwd=home, SIGNALLED=signalled)
    assert code == 128 + number, said(home)
    name = signal.Signals(number).name
    assert said(home).splitlines()[-1] == f"error: stopped by {name}; resume it with python {AGAIN}"
    assert record_of(home / "run")["status"] == "interrupted"
    assert record_of(home / "run")["error"] == f"stopped by {signal.Signals(number).name}"
    return home / "run"


@pytest.mark.parametrize("micro_batch", [0, 1, 2, 3])
def test_a_signal_at_any_micro_batch_lets_the_window_be_finished(
    zygote: Zygote, tmp_path: Path, micro_batch: int
) -> None:
    """The checkpoint stands after the window in which it came, whichever micro-batch of it was at work."""
    at = 4 * (WINDOWS - 1) + 2 + 4 * 6 + 1 + micro_batch  # in the seventh window of the second epoch
    run = stopped(zygote, tmp_path, signal.SIGTERM, at)
    last = manifest_of(run)["last"]
    assert (last["epoch"], last["window"], last["optimizer_steps"]) == (1, 7, WINDOWS + 7)


@pytest.mark.parametrize("number", SIGNALS)
def test_what_is_stopped_and_resumed_is_the_same_run(zygote: Zygote, tmp_path: Path, whole: Path, number: int) -> None:
    """The command that is printed goes on to the same bits, and says so; the directory is not in use any more."""
    run = stopped(zygote, tmp_path, number, at=100)
    command = re.findall(r"; resume it with python (.*)$", said(tmp_path), re.MULTILINE)[-1]
    assert zygote.run(*shlex.split(command), cwd=tmp_path) == 0, said(tmp_path)
    assert "it is the same run, bit for bit" in said(tmp_path)
    assert record_of(run)["status"] == "finished"
    assert differences(run, whole) == []


LONG = pytest.mark.long


@pytest.mark.parametrize("call", [1, pytest.param(3, marks=LONG), pytest.param(6, marks=LONG), 7])
def test_a_signal_while_it_is_evaluated_is_the_same(zygote: Zygote, tmp_path: Path, whole: Path, call: int) -> None:
    """In the validation of an epoch and in the final report: no window is trained twice, none is left out."""
    run = stopped(zygote, tmp_path, signal.SIGTERM, call, "evaluating")
    assert zygote.run("train.py", "resume=run", *CONF, cwd=tmp_path) == 0, said(tmp_path)
    assert differences(run, whole) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_after_the_last_report_lets_the_run_finish(zygote: Zygote, tmp_path: Path, number: int) -> None:
    """The run is finished, and the exit code agrees: 0, with the results."""
    last = 9  # of the evaluation batches: those of a validation and of the two final reports, three each
    words = (*WORDS, "epochs=1", "hydra.run.dir=run")
    code = zygote.run("train.py", *words, cwd=tmp_path, SIGNALLED=f"{int(number)} {last} evaluating 1")
    assert record_of(tmp_path / "run")["status"] == "finished"
    assert code == 0, said(tmp_path)
    assert "best checkpoint" in said(tmp_path)
    assert "stopped" not in said(tmp_path)


def test_a_signal_to_the_whole_group_spares_the_workers(zygote: Zygote, tmp_path: Path) -> None:
    """A terminal and Slurm signal every process of the group: the loader processes leave it to the trainer."""
    words = (*STREAMED, "epochs=30", "hydra.run.dir=run")
    pid = zygote.start("train.py", *words, cwd=tmp_path)
    wait_for(lambda: (tmp_path / "run" / "checkpoints" / "manifest.json").exists())
    os.killpg(pid, signal.SIGTERM)
    assert zygote.wait(pid) == 128 + signal.SIGTERM, said(tmp_path)
    assert said(tmp_path).count("error:") == 1
    assert "Traceback" not in said(tmp_path)
    wait_for(lambda: not alive_in(pid))


def test_a_signal_stops_a_whole_sweep(zygote: Zygote, tmp_path: Path) -> None:
    """No other job begins; the job at work has saved, and the line says how the sweep goes on, which it does."""
    words = ("-m", "threads=1", "progress=false", "model=mlp", "epochs=200", "seed=0,1", "sweep=s")
    pid = zygote.start("train.py", *words, cwd=tmp_path)
    sweep = tmp_path / "outputs" / "sweeps" / "s"
    wait_for(lambda: bool(list(sweep.glob("*/checkpoints/manifest.json"))))
    os.kill(pid, signal.SIGTERM)
    assert zygote.wait(pid) == 128 + signal.SIGTERM, said(tmp_path)
    goes_on = f"error: stopped by SIGTERM; resume it with python {ROOT}/train.py {' '.join(words)}"
    assert said(tmp_path).splitlines()[-1] == goes_on
    ((run, status),) = ((file.parent, record_of(file.parent)["status"]) for file in sweep.glob("*/run.json"))
    assert status == "interrupted"
    pid = zygote.start("train.py", *words, cwd=tmp_path)
    wait_for(lambda: "it is the same run, bit for bit" in (run / "train.log").read_text())
    os.kill(pid, signal.SIGTERM)
    zygote.wait(pid)


def test_a_second_signal_stops_at_once(zygote: Zygote, tmp_path: Path) -> None:
    """Who can't wait sends it again: nothing is saved any more, and what was saved before is whole."""
    run = tmp_path / "run"
    code = zygote.run("train.py", *WORDS, "hydra.run.dir=run", cwd=tmp_path, SIGNALLED="2 100 training 2")
    assert code == 128 + signal.SIGINT, said(tmp_path)
    assert manifest_of(run)["last"]["window"] == 0
    assert record_of(run)["status"] == "interrupted"


SLOW_SAVE = """
import sys, time
from pathlib import Path
from microstep.run.checkpoints import checkpoints
serialize = checkpoints.serialize_state
def serialize_slowly(state):
    if state["progress"]["epoch"] == 2:
        Path("saving").touch()
        while not Path("go_on").exists():
            time.sleep(0.01)
    return serialize(state)
checkpoints.serialize_state = serialize_slowly
from microstep.cli.programs import train
train(sys.argv[1:])
"""


@pytest.mark.long
def test_a_directory_is_given_back_after_the_last_write(zygote: Zygote, tmp_path: Path) -> None:
    """A second signal ends the wait for a slow save. Until it is written, a resume is refused; then it goes on."""
    words = ("model=mlp", "epochs=4", "threads=1", "progress=false", "hydra.run.dir=run")
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_SAVE, *words], cwd=tmp_path, stdout=subprocess.DEVNULL
    ) as process:
        wait_for((tmp_path / "saving").exists)
        while record_of(tmp_path / "run")["status"] == "running":
            process.send_signal(signal.SIGTERM)
            time.sleep(0.1)
        refused = zygote.run("train.py", "resume=run", cwd=tmp_path)
        (tmp_path / "go_on").touch()
    assert refused == 5, said(tmp_path)
    assert f"(pid {process.pid} on " in said(tmp_path)
    assert process.returncode == 128 + signal.SIGTERM
    assert manifest_of(tmp_path / "run")["last"]["epoch"] == 2
    assert zygote.run("train.py", "resume=run", cwd=tmp_path) == 0, said(tmp_path)
    assert manifest_of(tmp_path / "run")["last"]["epoch"] == 4


def test_a_signal_while_it_starts_leaves_a_run_that_can_be_started(zygote: Zygote, tmp_path: Path) -> None:
    """Before the first window there is nothing to save: the printed command starts it."""
    pid = zygote.start("train.py", "model=mlp", "epochs=1", "threads=1", "hydra.run.dir=run", cwd=tmp_path)
    wait_for(lambda: (tmp_path / "run" / "config.yaml").exists())
    os.kill(pid, signal.SIGTERM)
    assert zygote.wait(pid) == 128 + signal.SIGTERM, said(tmp_path)
    assert zygote.run("train.py", "resume=run", cwd=tmp_path) == 0, said(tmp_path)
    assert record_of(tmp_path / "run")["status"] == "finished"


def catches(pid: int, signum: int) -> bool:
    """Return whether a process has installed a handler for a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (signum - 1) & 1)


def test_a_signal_while_statistics_are_computed_leaves_nothing_half_written(
    zygote: Zygote, tmp_path: Path, photos: Path
) -> None:
    """compute_stats.py ends with 128 + n, with its old files or its new ones."""
    words = ("dataset=image_folder", f"dataset.root={photos}", "num_workers=0", "split=train,test")
    pid = zygote.start("compute_stats.py", *words, cwd=tmp_path)
    wait_for(lambda: catches(pid, signal.SIGTERM))
    time.sleep(0.3)
    os.kill(pid, signal.SIGTERM)
    assert zygote.wait(pid) in (0, 128 + signal.SIGTERM), said(tmp_path)
    assert not [file for file in tmp_path.rglob("*") if file.name.endswith(".tmp")]
    for file in tmp_path.rglob("*.json"):
        json.loads(file.read_text())


def alive_in(group: int) -> list[str]:
    """Return the processes of a group that are more than an entry in the table."""
    stats = [file.read_text().rpartition(")") for file in Path("/proc").glob("[0-9]*/stat")]
    return [name for name, _, rest in stats if int(rest.split()[2]) == group and rest.split()[0] != "Z"]


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)
