"""Parallel runs, each in a process of its own, do not affect each other."""

import json
import os
import re
import signal
import time
from itertools import combinations
from pathlib import Path

import pytest

from tests.conftest import call
from tests.faults.runs import differences
from tests.faults.zygote import Zygote, killed
from tests.sweep.test_sweeps import CONF, LEAST, SWEEP, ran, record

pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="pip install -e .[local]")
LOCAL = ("-m", "hydra/launcher=local", "hydra.launcher.n_jobs=2")
FATES = ("fine", "good", "well", "raises", "dies", "leaves")
MODEL = ("--config-dir", CONF, *LEAST, "model=unlucky", "checkpoint.every_steps=5")
UNLUCKY = (*LOCAL, *MODEL, f"model.fate={','.join(FATES)}", "sweep=s")


@pytest.fixture(scope="module")
def home(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of six runs, of which one takes long, one raised, one was killed and one called sys.exit."""
    home = tmp_path_factory.mktemp("local")
    environment = {"LUCK": str(home / "luck"), "DELAY": "2", "CUDA_VISIBLE_DEVICES": "3,GPU-5f"}
    done = zygote.call("train.py", *UNLUCKY, cwd=home, **environment)
    (home / "done.json").write_text(json.dumps([done.returncode, done.stdout, done.stderr]))
    return home


def runs(home: Path) -> dict[str, Path]:
    return {fate: home / SWEEP / f"model.fate-{fate}" for fate in FATES}


def test_the_others_finish(home: Path) -> None:
    """Three of six runs finish; the parent process of the killed run records its failure in run.json."""
    told = {fate: (record(run)["status"], record(run)["error"]) for fate, run in runs(home).items()}
    assert {fate for fate, (status, _) in told.items() if status == "finished"} == {"fine", "good", "well"}
    assert told["raises"] == ("failed", "RuntimeError: planted")
    assert told["leaves"] == ("failed", "SystemExit: 3")
    assert told["dies"][0] == "failed" and "was killed by SIGKILL" in told["dies"][1]


def active_at_once(*two: Path) -> bool:
    """Return whether both runs had built their models before one of them wrote its last record."""
    began, ended = ([(run / name).stat().st_mtime_ns for run in two] for name in ("gpu.txt", "run.json"))
    return max(began) < min(ended)


def test_runs_that_are_active_at_once_have_different_gpus(home: Path) -> None:
    """While one takes long, others follow each other on the other GPU. The model sees its own alone."""
    finished = [runs(home)[fate] for fate in ("fine", "good", "well")]
    gpus = {run: (run / "gpu.txt").read_text() for run in finished}
    pairs = [(a, b) for a, b in combinations(finished, 2) if active_at_once(a, b)]
    assert set(gpus.values()) == {"3", "GPU-5f"}
    assert pairs
    assert all(gpus[a] != gpus[b] for a, b in pairs)


def test_all_six_are_told_of(home: Path) -> None:
    """The output has a line per run, a list of the failed runs and one line of error; the exit code is 1."""
    code, stdout, stderr = json.loads((home / "done.json").read_text())
    lines = stdout.splitlines()
    assert code == 1
    assert set(ran(lines)) == {run.name for run in runs(home).values()}
    table = lines[lines.index("not finished:") + 1 :][:3]
    assert [line.split()[0] for line in table] == [runs(home)[fate].name for fate in ("raises", "dies", "leaves")]
    for file in ("summary.csv", "summary.md", "summary.html"):
        assert all(run.name in (home / SWEEP / file).read_text() for run in runs(home).values())
    assert stderr == f"error: sweep {SWEEP}: 3 of 6 runs are not finished; the command above runs only those again\n"


def test_a_run_beside_others_is_the_same_as_alone(home: Path, zygote: Zygote) -> None:
    """Weights, reports and curves are equal bit for bit."""
    assert zygote.run("train.py", *MODEL, "model.fate=fine", "hydra.run.dir=alone", cwd=home, LUCK="none") == 0
    assert differences(home / "alone", runs(home)["fine"]) == []


def test_the_same_command_runs_just_the_other_three(zygote: Zygote, home: Path) -> None:
    """The others are not changed. The killed run goes on from its checkpoint, and ends with the bits of a whole run."""
    before = {fate: (run / "run.json").stat().st_mtime_ns for fate, run in runs(home).items()}
    (home / "luck").write_text("")
    done = zygote.call("train.py", *UNLUCKY, cwd=home, LUCK=str(home / "luck"))
    assert done.returncode == 0, done.stderr
    assert set(ran(done.stdout.splitlines())) == {runs(home)[fate].name for fate in ("raises", "dies", "leaves")}
    after = {fate: (run / "run.json").stat().st_mtime_ns for fate, run in runs(home).items()}
    assert {fate for fate in FATES if after[fate] == before[fate]} == {"fine", "good", "well"}
    assert {record(run)["status"] for run in runs(home).values()} == {"finished"}
    (resumed,) = record(runs(home)["dies"])["resumed"]
    assert re.fullmatch(r"epoch 1, window (10|15)", resumed["after"])
    assert differences(runs(home)["dies"], runs(home)["fine"]) == []


@pytest.mark.long
def test_a_launchers_process_that_is_killed_takes_no_run_with_it(tmp_path: Path) -> None:
    """Loky abandons its whole pool; the jobs that had not ended are launched again and finish."""
    words = (*LEAST, "model=unlucky", "model.fate=takes_its_launcher_along,fine,good", "sweep=s")
    done = call("train.py", "--config-dir", CONF, *LOCAL, *words, cwd=tmp_path, LUCK="none")
    assert done.returncode == 1
    status = {path.parent.name: record(path.parent)["status"] for path in (tmp_path / SWEEP).glob("*/run.json")}
    assert {name for name, how in status.items() if how == "finished"} == {
        f"model.fate-{fate}" for fate in ("fine", "good")
    }
    assert len(status) == 3
    assert "the launcher failed: TerminatedWorkerError" in done.stderr


def test_a_signal_lets_every_run_save(zygote: Zygote, tmp_path: Path) -> None:
    """Exit code 143: active runs are interrupted, no other run starts, and no process is left."""
    words = ("model=mlp", "epochs=100000", "threads=1", "log_every_steps=100000", "seed=0,1,2", "sweep=s")
    program = zygote.start("train.py", *LOCAL, *words, cwd=tmp_path)
    try:
        wait_for_epochs(tmp_path / SWEEP, 2)
        started = {path.parent.name for path in (tmp_path / SWEEP).glob("*/run.json")}
        os.killpg(program, signal.SIGTERM)
        assert zygote.wait(program) == 128 + signal.SIGTERM
    finally:
        killed(program)
    found = {path.parent.name: record(path.parent) for path in (tmp_path / SWEEP).glob("*/run.json")}
    assert {name: facts["status"] for name, facts in found.items()} == dict.fromkeys(started, "interrupted")
    last = (tmp_path / "output.txt").read_text().splitlines()[-1]
    assert re.fullmatch(r"error: stopped by SIGTERM; resume it with \S+ \S+train\.py -m .* sweep=s", last)


def wait_for_epochs(sweep: Path, count: int) -> None:
    """Wait until so many runs have finished an epoch."""
    for _ in range(1200):
        if sum("epoch" in record(path.parent) for path in sweep.glob("*/run.json")) == count:
            return
        time.sleep(0.1)
    raise AssertionError("they never did")
