"""Launchers with real processes: Ray's own cluster, submitit's local executor, and a made-up Slurm (slurm.py)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, call, error_of
from tests.faults.zygote import Zygote
from tests.sweep import slurm

CONF = Path(__file__).parent / "conf"
TINY = ("epochs=1", "progress=false", "sweep=s")
DEAD = "its process was killed by SIGKILL; the system may have run out of memory"
YAMLS = sorted(path.stem for path in (ROOT / "conf" / "hydra" / "launcher").glob("*.yaml"))


def needs(package: str) -> pytest.MarkDecorator:
    there = find_spec("hydra_plugins") and find_spec(f"hydra_plugins.{package}")
    return pytest.mark.skipif(not there, reason=f"{package} is not installed")


@dataclass(frozen=True)
class Swept:
    """The directory of a finished sweep."""

    home: Path
    code: int = 0
    out: str = ""
    err: str = ""

    def runs(self) -> dict[str, dict[str, Any]]:
        """Return the record of each run by the part of its name that differs."""
        files = sorted((self.home / "outputs" / "sweeps" / "s").glob("*/run.json"))
        return {special(file.parent.name): json.loads(file.read_text()) for file in files}


def special(name: str) -> str:
    """Return the part of a run's name that differs between runs."""
    return "_".join(word for word in name.split("_") if word.startswith(("epochs-", "model-", "seed-", "threads-")))


def environment(home: Path) -> dict[str, str]:
    """Return an environment without variables that set the number of threads or the address of a cluster."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    left_out = ("OMP_NUM_THREADS", "RAY_ADDRESS")
    kept = {key: value for key, value in os.environ.items() if key not in left_out}
    return kept | {"PYTHONPATH": path, "LEFT_BY": str(home)}


def wait_until(there: Callable[[], Any], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < until, "it never comes"
        time.sleep(0.1)


def left_by(home: Path) -> list[str]:
    """Return the commands of processes that a sweep has left running, recognized by their environment."""
    mark, found = f"LEFT_BY={home}".encode(), []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


# Ray.


def only_one_is_left(runs: dict[str, dict[str, Any]]) -> bool:
    """Return whether the other three runs have ended and the long one has started."""
    ended = [record for record in runs.values() if record["status"] != "running"]
    return len(ended) == 3 and runs.get("epochs-1000000_model-mlp", {}).get("epoch", 0) >= 1


@pytest.fixture(scope="module")
def ray_stopped(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """A cluster that Ray starts, with room for two runs: two are killed, one ends, and SIGTERM comes in the last."""
    home = tmp_path_factory.mktemp("ray")
    room = ("+hydra.launcher.ray.init.num_cpus=2", "+hydra.launcher.ray.init.num_gpus=2")
    words = ("hydra/launcher=ray", *room, "--config-dir", str(CONF))
    runs = ("model=killed,mlp", "epochs=1,1000000", "log_every_steps=1000000", "progress=false", "sweep=s")
    command = [sys.executable, str(ROOT / "train.py"), "-m", *words, *runs]
    pipe = subprocess.PIPE
    program = subprocess.Popen(command, cwd=home, env=environment(home), stdout=pipe, stderr=pipe, text=True)
    try:
        wait_until(lambda: only_one_is_left(Swept(home).runs()))
        program.send_signal(signal.SIGTERM)
        out, err = program.communicate(timeout=120)
    finally:
        program.kill()
    return Swept(home, program.returncode, out, err)


@needs("hydra_ray_launcher")
@pytest.mark.long
def test_ray_contains_a_killed_run(ray_stopped: Swept) -> None:
    """The other runs continue, and the killed ones are recorded."""
    runs = ray_stopped.runs()
    assert runs["epochs-1_model-mlp"]["status"] == "finished"
    for epochs in (1, 1000000):
        record = runs[f"epochs-{epochs}_model-killed"]
        assert (record["status"], record["error"]) == ("failed", DEAD)


@needs("hydra_ray_launcher")
@pytest.mark.long
def test_ray_gives_a_run_the_cores_that_it_asks_for(ray_stopped: Swept) -> None:
    """`num_cpus: 1` is one thread, on a machine of any number."""
    assert {record["threads"] for record in ray_stopped.runs().values()} == {1}


@needs("hydra_ray_launcher")
@pytest.mark.long
def test_ray_shows_no_gpu_to_a_run_that_asks_for_none(ray_stopped: Swept) -> None:
    """A run with `num_gpus: 0` in a cluster with GPUs sees none; otherwise every run would use the first."""
    assert (ray_stopped.home / "gpus.txt").read_text() == "no GPU"


@needs("hydra_ray_launcher")
@pytest.mark.long
def test_sigterm_stops_a_sweep_in_ray(ray_stopped: Swept) -> None:
    """The active run saves and is interrupted; exit code 143, and one line with the command to resume."""
    assert ray_stopped.code == 128 + signal.SIGTERM
    (line,) = ray_stopped.err.splitlines()
    assert line.startswith(
        f"error: stopped by SIGTERM; resume it with {sys.executable} {ROOT}/train.py -m hydra/launcher=ray "
    )
    record = ray_stopped.runs()["epochs-1000000_model-mlp"]
    assert (record["status"], record["error"]) == ("interrupted", "stopped by SIGTERM")


@needs("hydra_ray_launcher")
@pytest.mark.long
def test_ray_leaves_nothing_running(ray_stopped: Swept) -> None:
    """The cluster that was started for a sweep ends with it."""
    wait_until(lambda: not left_by(ray_stopped.home), 60)


# submitit: its local executor, and Slurm.


@needs("hydra_submitit_launcher")
@pytest.mark.long
def test_submitit_contains_a_killed_run(zygote: Zygote, tmp_path: Path) -> None:
    """The plugin's own option for one machine: the other run finishes, the killed one is recorded; exit code 1."""
    words = ("-m", "model=killed,mlp", *TINY, "hydra/launcher=submitit_local", "--config-dir", str(CONF))
    assert zygote.run("train.py", *words, cwd=tmp_path) == 1
    runs, said = Swept(tmp_path).runs(), (tmp_path / "output.txt").read_text().splitlines()
    assert [record["status"] for record in runs.values()] == ["failed", "finished"]
    assert runs["model-killed"]["error"] == DEAD
    assert f"  model-killed  {DEAD}" in said
    assert said[-1].startswith("error: sweep outputs/sweeps/s: 1 of 2 runs are not finished; ")


@pytest.fixture(scope="module")
def slurm_swept(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """Two runs as an array of one core each, one at a time; the first has to make room while it is at work."""
    home = tmp_path_factory.mktemp("slurm")
    path = os.pathsep.join([str(slurm.installed(home / "bin")), os.environ["PATH"]])
    environment = {"PATH": path, "FAKE_SLURM": str(home / "state"), "OMP_NUM_THREADS": "2"}
    (home / "state").mkdir()
    asked = ("cpus_per_task=1", "timeout_min=600", "partition=short", "array_parallelism=1", "signal_delay_s=60")
    words = [f"hydra.launcher.{word}" for word in (*asked, "mem_gb=3")]
    words.append("+hydra.launcher.additional_parameters.qos=long")
    runs = ("seed=0,1", "model=mlp", "epochs=60", "log_every_steps=1000", "progress=false", "sweep=s")
    program = zygote.start("train.py", "-m", "hydra/launcher=slurm", *words, *runs, cwd=home, **environment)
    output = home / "output.txt"
    output.touch()
    first = "seed-0"
    wait_until(lambda: Swept(home).runs().get(first, {}).get("epoch", 0) >= 1 or "error" in output.read_text())
    scancel = [home / "bin" / "scancel", "7001_0", "--signal", "USR2"]
    subprocess.run(scancel, env=os.environ | environment, check=True)
    return Swept(home, zygote.wait(program), output.read_text())


@needs("hydra_submitit_launcher")
def test_slurm_is_asked_for_what_is_configured(slurm_swept: Swept) -> None:
    """Cores, time, memory, partition, the array's limit, the signal ahead of time, and whatever else sbatch takes."""
    asked = slurm.options((slurm_swept.home / "state" / "7001.sbatch").read_text())
    wanted = {"array": "0-1%1", "cpus-per-task": "1", "time": "600", "partition": "short", "mem": "3GB", "qos": "long"}
    assert asked.items() >= (wanted | {"signal": "USR2@60", "job-name": "train", "nodes": "1"}).items()
    assert set(asked) == {*wanted, "signal", "job-name", "nodes", "error", "output", "open-mode", "wckey"}


@needs("hydra_submitit_launcher")
def test_runs_finish_in_slurm(slurm_swept: Swept) -> None:
    """Each run is a job of an array; the program waits for them and exits with 0."""
    assert slurm_swept.code == 0, slurm_swept.out
    assert "error" not in slurm_swept.out
    assert [record["status"] for record in slurm_swept.runs().values()] == ["finished", "finished"]


@needs("hydra_submitit_launcher")
def test_threads_follow_the_cores_that_slurm_gives(slurm_swept: Swept) -> None:
    """A run has as many threads as its job has cores, whatever the submitting environment sets."""
    assert [record["threads"] for record in slurm_swept.runs().values()] == [1, 1]
    step = json.loads((slurm_swept.home / "state" / "7001_0.srun").read_text())
    assert (step["SLURM_CPUS_PER_TASK"], step["OMP_NUM_THREADS"]) == ("1", "1")


@needs("hydra_submitit_launcher")
def test_a_run_that_slurm_queues_again_goes_on(slurm_swept: Swept) -> None:
    """A run that times out or is preempted saves, is queued again, and is resumed to its end."""
    assert (slurm_swept.home / "state" / "7001_0.requeued").exists()
    first, second = slurm_swept.runs().values()
    assert [len(record.get("resumed", [])) for record in (first, second)] == [1, 0]
    assert first["epoch"] == second["epoch"] == 60


# Cores, and what is refused.


@needs("hydra_joblib_launcher")
@pytest.mark.long
def test_cores_are_divided_among_runs_side_by_side(tmp_path: Path) -> None:
    """`n_jobs=2` gives each half of them, where neither `threads=` nor the environment says otherwise."""
    words = ("hydra/launcher=local", "hydra.launcher.n_jobs=2", "threads=null,3", "model=mlp", *TINY)
    command = [sys.executable, str(ROOT / "train.py"), "-m", *words]
    subprocess.run(command, cwd=tmp_path, env=environment(tmp_path), check=True, capture_output=True)
    share = max(1, (os.cpu_count() or 1) // 2)
    assert sorted(record["threads"] for record in Swept(tmp_path).runs().values()) == sorted([share, 3])


@pytest.mark.parametrize("launcher", YAMLS)
def test_a_launcher_s_yaml_composes(launcher: str, tmp_path: Path) -> None:
    """`--cfg hydra` prints it, and nothing is on stderr."""
    done = call("train.py", "--cfg", "hydra", f"hydra/launcher={launcher}", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "_target_: hydra_plugins.hydra_" in done.stdout


def test_a_launcher_that_is_not_installed_is_refused(tmp_path: Path) -> None:
    """Exit code 2 in one line that says how to install it; no directory is made."""
    (tmp_path / "conf" / "hydra" / "launcher").mkdir(parents=True)
    yaml = "_target_: hydra_plugins.hydra_moon_launcher.launcher.MoonLauncher\n"
    (tmp_path / "conf" / "hydra" / "launcher" / "moon.yaml").write_text(yaml)
    done = call("train.py", "-m", "hydra/launcher=moon", "seed=0,1", "--config-dir", "conf", cwd=tmp_path)
    says = "error: hydra/launcher=moon: hydra-moon-launcher is not installed; pip install hydra-moon-launcher"
    assert (done.returncode, error_of(done)) == (2, says)
    assert not (tmp_path / "outputs").exists()


@needs("hydra_joblib_launcher")
@pytest.mark.parametrize("n_jobs", ["0", "abc", "1.5", "-2", "True", "None"])
def test_what_is_no_number_of_runs_is_refused(n_jobs: str, tmp_path: Path) -> None:
    """Exit code 2 in one line, before anything starts."""
    words = ("hydra/launcher=local", f"hydra.launcher.n_jobs={n_jobs}", "seed=0,1")
    done = call("train.py", "-m", *words, cwd=tmp_path)
    says = f"error: hydra.launcher.n_jobs={n_jobs}: it is no number of runs; give at least 1, or -1 for one a core"
    assert (done.returncode, error_of(done)) == (2, says)
    assert not (tmp_path / "outputs").exists()
