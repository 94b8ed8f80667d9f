"""One run in several processes: whichever of them fails, all of them end, one line says why, and a resume goes on."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.components.strategy.test_data_parallel import distance
from tests.conftest import call, error_of
from tests.faults.runs import differences, manifest_of
from tests.faults.test_full_disk import small_disk  # noqa: F401  # a fixture
from tests.faults.test_stops import record_of, said, wait_for
from tests.faults.zygote import ROOT, Zygote

CONF = ("--config-dir", str(Path(__file__).parent / "conf"))
DDP = ("strategy=ddp", "strategy.processes=2", "threads=1", "progress=false")
SMALL = ("model=signalled", "epochs=2", "batch_size=16", "accum=2", "device=cpu", "checkpoint.every_steps=5")
WORDS = (*CONF, *DDP, *SMALL)
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(ROOT / "train.py"))
TRAIN = (sys.executable, str(ROOT / "train.py"))
SECONDS = 10  #: in which all processes end
LOADER_SECONDS = 15  #: in which loader processes do, which look for their parent every 5 s
LONG = pytest.mark.long


@pytest.fixture(scope="module")
def whole(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that no fault comes to."""
    home = tmp_path_factory.mktemp("whole")
    assert zygote.run("train.py", *WORDS, "hydra.run.dir=run", cwd=home) == 0, said(home)
    return home / "run"


def start(home: Path, command: tuple[str, ...], *words: str, **environment: str) -> subprocess.Popen[bytes]:
    """Start a command in a process group of its own, with its output in `output.txt`."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path} | environment
    with (home / "output.txt").open("ab") as output:
        return subprocess.Popen([*command, *words], cwd=home, env=env, stdout=output, stderr=output, process_group=0)


def changed(*words: str) -> list[str]:
    """Return the words of a run, of which the last of a key counts."""
    return list({word.split("=")[0]: word for word in (*WORDS, *words)}.values())


def fault(number: int, at: int, when: str, rank: int, times: int = 1) -> dict[str, str]:
    """Return the environment of a rank's fault, at its n-th micro-batch or evaluation batch."""
    return {"SIGNALLED": f"{int(number)} {at} {when} {times}", "SIGNALLED_RANK": str(rank)}


def processes_in(home: Path) -> list[int]:
    """Return the processes whose working directory is `home`."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cwd"):
        try:
            found += [int(place.parent.name)] if place.readlink() == home else []
        except OSError:
            continue  # it has ended
    return found


def check_all_end(home: Path, since: float | None = None, seconds: float = SECONDS) -> None:
    """Check that all processes have ended within some seconds of the fault."""
    wait_for(lambda: not processes_in(home))
    began = (home / "signalled").stat().st_mtime if since is None else since
    assert time.time() - began < seconds, said(home)


def errors_in(home: Path) -> list[str]:
    assert "Traceback" not in said(home), said(home)
    return [line for line in said(home).splitlines() if line.startswith("error: ")]


def resume(zygote: Zygote, home: Path) -> None:
    """Resume by the command that the only error line names."""
    (line,) = errors_in(home)
    words = shlex.split(line.rpartition("; resume it with ")[2])
    assert words[-1] == "resume=run"
    words = [word for word in words[1:] if not word.endswith("train.py")]
    assert zygote.run("train.py", *words, *(() if CONF[0] in words else CONF), cwd=home) == 0, said(home)
    assert "it is the same run, bit for bit" in said(home)


MOMENTS = [(60, "training"), pytest.param(2, "evaluating", marks=LONG), pytest.param(4, "evaluating", marks=LONG)]


@pytest.mark.parametrize(("at", "when"), MOMENTS)
def test_a_killed_helper_ends_the_run(zygote: Zygote, tmp_path: Path, whole: Path, at: int, when: str) -> None:
    """In training, validation or the final report: one line names it, the run has failed, a resume is the same run."""
    pid = zygote.start("train.py", *WORDS, "hydra.run.dir=run", cwd=tmp_path, **fault(signal.SIGKILL, at, when, 1))
    assert zygote.wait(pid) == 1, said(tmp_path)
    check_all_end(tmp_path)
    assert re.match("error: rank 1: its process was killed by SIGKILL; .*; resume it with ", errors_in(tmp_path)[0])
    assert record_of(tmp_path / "run")["status"] == "failed"
    resume(zygote, tmp_path)
    assert differences(tmp_path / "run", whole) == []


@pytest.mark.long
@pytest.mark.parametrize("rank", [1, 2])
def test_one_of_three_processes_is_killed(zygote: Zygote, tmp_path: Path, rank: int) -> None:
    """The line names the one that was killed, not the one that noticed."""
    words = changed("strategy.processes=3")
    killed = fault(signal.SIGKILL, 40, "training", rank)
    assert zygote.run("train.py", *words, "hydra.run.dir=run", cwd=tmp_path, **killed) == 1, said(tmp_path)
    check_all_end(tmp_path)
    assert errors_in(tmp_path)[0].startswith(f"error: rank {rank}: its process was killed by SIGKILL")


def helpers_in(home: Path) -> list[int]:
    """Return the helpers that train.py has started."""
    lines = {pid: Path(f"/proc/{pid}/cmdline") for pid in processes_in(home)}
    return [pid for pid, line in lines.items() if line.exists() and b"training.helper" in line.read_bytes()]


def helper_of(home: Path) -> int:
    """Return the process of rank 1, as soon as it has started."""
    wait_for(lambda: bool(helpers_in(home)))
    return helpers_in(home)[0]


def test_a_helper_that_is_killed_while_it_starts_ends_the_run(zygote: Zygote, tmp_path: Path) -> None:
    """The line names it. No checkpoint was written yet, and the printed command starts the run."""
    pid = zygote.start("train.py", *WORDS, "hydra.run.dir=run", cwd=tmp_path)
    os.kill(helper_of(tmp_path), signal.SIGKILL)
    since = time.time()
    assert zygote.wait(pid) == 1, said(tmp_path)
    check_all_end(tmp_path, since)
    (line,) = errors_in(tmp_path)
    assert line.startswith("error: rank 1: its process was killed by SIGKILL")


@pytest.mark.parametrize("size", [2, pytest.param(3, marks=LONG)])
def test_a_killed_rank_0_takes_its_helpers_with_it(zygote: Zygote, tmp_path: Path, whole: Path, size: int) -> None:
    """The first helper says how to go on; none is left; the resumed run is the same run."""
    words, killed = changed(f"strategy.processes={size}"), fault(signal.SIGKILL, 60, "training", 0)
    pid = zygote.start("train.py", *words, "hydra.run.dir=run", cwd=tmp_path, **killed)
    assert zygote.wait(pid) == -signal.SIGKILL, said(tmp_path)
    check_all_end(tmp_path)
    assert errors_in(tmp_path)[0].startswith("error: rank 0: its process died; resume it with ")
    assert record_of(tmp_path / "run")["status"] == "running"
    if size == 2:
        resume(zygote, tmp_path)
        assert differences(tmp_path / "run", whole) == []


@pytest.mark.long
@pytest.mark.parametrize("rank", [0, 1])
def test_no_loader_process_outlives_a_killed_rank(zygote: Zygote, tmp_path: Path, rank: int) -> None:
    """Loader processes hold the sockets of the one they belong to; the others notice its death all the same."""
    streamed = ("dataset.resident=false", "num_workers=1", "hydra.run.dir=run")
    killed = fault(signal.SIGKILL, 60, "training", rank)
    assert zygote.run("train.py", *WORDS, *streamed, cwd=tmp_path, **killed) == (1 if rank else -9), said(tmp_path)
    check_all_end(tmp_path, seconds=LOADER_SECONDS)
    assert errors_in(tmp_path)[0].startswith(f"error: rank {rank}: its process ")


STOPS = [(signal.SIGTERM, 0), pytest.param(signal.SIGUSR1, 1, marks=LONG), pytest.param(signal.SIGINT, 1, marks=LONG)]


@pytest.mark.parametrize(("number", "rank"), STOPS)
def test_a_signal_to_one_process_stops_all_at_one_window(
    zygote: Zygote, tmp_path: Path, whole: Path, number: int, rank: int
) -> None:
    """Whichever gets it: rank 0 saves one checkpoint after that window, and a resume ends with the same bits."""
    words = [word for word in WORDS if not word.startswith("checkpoint")]
    stopped = fault(number, 45 + 2 * 6 + 1, "training", rank)
    assert zygote.run("train.py", *words, "hydra.run.dir=run", cwd=tmp_path, **stopped) == 128 + number, said(tmp_path)
    check_all_end(tmp_path)
    assert errors_in(tmp_path)[0].startswith(f"error: stopped by {signal.Signals(number).name}; resume it with ")
    assert (manifest_of(tmp_path / "run")["last"]["epoch"], manifest_of(tmp_path / "run")["last"]["window"]) == (1, 7)
    resume(zygote, tmp_path)
    assert differences(tmp_path / "run", whole) == []


@pytest.mark.parametrize("times", [1, pytest.param(2, marks=LONG)])
def test_ctrl_c_reaches_all_processes_and_is_told_once(zygote: Zygote, tmp_path: Path, times: int) -> None:
    """A terminal signals the whole group, once or twice: one line, exit code 130, and a checkpoint that loads."""
    pid = zygote.start("train.py", *changed("epochs=300"), "hydra.run.dir=run", cwd=tmp_path)
    wait_for(lambda: (tmp_path / "run" / "checkpoints" / "manifest.json").exists())
    since = time.time()
    for _ in range(times):
        os.killpg(pid, signal.SIGINT)
    assert zygote.wait(pid) == 128 + signal.SIGINT, said(tmp_path)
    check_all_end(tmp_path, since)
    assert len(errors_in(tmp_path)) == 1
    assert record_of(tmp_path / "run")["status"] == "interrupted"


def test_ctrl_c_while_a_helper_starts_is_one_line(zygote: Zygote, tmp_path: Path) -> None:
    """A helper that has imported nothing yet shows no traceback."""
    pid = zygote.start("train.py", *WORDS, "hydra.run.dir=run", cwd=tmp_path)
    helper_of(tmp_path)
    since = time.time()
    os.killpg(pid, signal.SIGINT)
    assert zygote.wait(pid) == 128 + signal.SIGINT, said(tmp_path)
    check_all_end(tmp_path, since)
    assert len(errors_in(tmp_path)) == 1


def test_the_error_of_a_helper_is_that_of_the_run(zygote: Zygote, tmp_path: Path) -> None:
    """Rank 0 prints its reason, and train.log has its traceback."""
    raised = fault(0, 60, "training", 1)
    assert zygote.run("train.py", *WORDS, "hydra.run.dir=run", cwd=tmp_path, **raised) == 1, said(tmp_path)
    check_all_end(tmp_path)
    assert errors_in(tmp_path)[0].startswith("error: rank 1: ValueError: planted; resume it with ")
    assert "in forward\n    raise ValueError" in (tmp_path / "run" / "train.log").read_text()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("dataset=ranked",), "error: rank 1: data: its data differ from those of rank 0: "),
        (("step=alone",), "error: rank 1: its weights differ from those of rank 0; look for a step without accumulate"),
    ],
)
def test_a_process_that_computes_something_else_is_refused(
    zygote: Zygote, tmp_path: Path, words: tuple[str, ...], line: str
) -> None:
    """Other data are noticed before the first window, other weights after it; the line names the rank."""
    assert zygote.run("train.py", *WORDS, *words, "hydra.run.dir=run", cwd=tmp_path) != 0
    wait_for(lambda: not processes_in(tmp_path))
    assert errors_in(tmp_path)[0].startswith(line)
    assert not (tmp_path / "run" / "checkpoints" / "manifest.json").exists()


@pytest.mark.long
def test_a_full_disk_ends_all_processes(zygote: Zygote, small_disk: Path, tmp_path: Path) -> None:  # noqa: F811
    """Exit 4 with rank 0's line; no helper is left."""
    words = (*DDP, "model=mlp", "model.hidden=[256,128]", "epochs=4", "log_every_steps=1000")
    assert zygote.run("train.py", *words, f"hydra.run.dir={small_disk / 'run'}", cwd=tmp_path) == 4, said(tmp_path)
    wait_for(lambda: not processes_in(tmp_path))
    assert "No space left on device" in errors_in(tmp_path)[0]


@pytest.mark.long
def test_two_runs_at_once_do_not_meet(zygote: Zygote, tmp_path: Path, whole: Path) -> None:
    """Each has a port of its own."""
    pids = [zygote.start("train.py", *WORDS, f"hydra.run.dir=run{n}", cwd=tmp_path) for n in range(2)]
    assert [zygote.wait(pid) for pid in pids] == [0, 0], said(tmp_path)
    assert [differences(tmp_path / f"run{n}", whole) for n in range(2)] == [[], []]


UNFIT = {
    "device=cuda:1": "each process takes a GPU of its own; choose device=cuda",
    "strategy=single": "torchrun started 2 processes, and the run has one; add strategy=ddp",
    "strategy.run_on=3": "torchrun started 2 processes; leave it out",
    "accumulation=one_process": "OneProcess has no argument `processes`",
    "hydra/launcher=local": "torchrun has started this program; leave it out",
}


@pytest.mark.parametrize(
    "word", [word if word == "strategy=single" else pytest.param(word, marks=LONG) for word in UNFIT]
)
@pytest.mark.parametrize("launcher", ["torchrun", pytest.param("srun", marks=LONG)])
def test_what_does_not_fit_several_processes_is_one_line(tmp_path: Path, word: str, launcher: str) -> None:
    """Exit 2 from rank 0, whoever holds the store; the other process ends by itself."""
    words = [*CONF, *(other for other in DDP if "strategy" not in other or word != "strategy=single"), word]
    words += ["-m"] if "launcher" in word else []
    port = str(20000 + os.getpid() % 20000)
    worlds = [world_of(rank, launcher, port) for rank in range(2)]
    helper = start(tmp_path, TRAIN, *words, **worlds[1])
    done = call("train.py", *words, cwd=tmp_path, **worlds[0])
    assert UNFIT[word].replace("torchrun", launcher) in error_of(done)
    assert done.returncode == 2
    assert helper.wait(SECONDS) == 0
    assert said(tmp_path) == ""


def world_of(rank: int, launcher: str, port: str) -> dict[str, str]:
    """Return what torchrun, whose rank 0 holds the store here, or srun gives a process."""
    if launcher == "torchrun":
        names = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": 2}
    else:
        names = {"SLURM_PROCID": rank, "SLURM_STEP_NUM_TASKS": 2, "SLURM_LOCALID": rank, "SLURM_JOB_ID": 1}
        names |= {"SLURM_STEP_ID": 0, "SLURM_STEP_TASKS_PER_NODE": 2}
    return {name: str(value) for name, value in names.items()} | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}


@pytest.mark.long
@pytest.mark.parametrize("rank", [0, 1])
def test_torchrun_a_killed_process(zygote: Zygote, tmp_path: Path, whole: Path, rank: int) -> None:
    """Our line comes before torchrun's own; no process is left; a resume is the same run."""
    killed = fault(signal.SIGKILL, 60, "training", rank)
    process = start(tmp_path, TORCHRUN, *WORDS, "hydra.run.dir=run", **killed)
    assert process.wait(120) == 1, said(tmp_path)
    check_all_end(tmp_path)
    ours = said(tmp_path).index(f"error: rank {rank}: its process died; resume it with ")
    assert ours < said(tmp_path).index("ChildFailedError")
    assert zygote.run("train.py", *CONF, "resume=run", cwd=tmp_path) == 0, said(tmp_path)
    assert differences(tmp_path / "run", whole) == []


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_torchrun_itself_gets_a_signal(zygote: Zygote, tmp_path: Path, number: int) -> None:
    """SIGUSR1 and SIGKILL end it and leave its processes behind: they save and stop all the same."""
    process = start(tmp_path, TORCHRUN, *changed("epochs=3000"), "hydra.run.dir=run")
    wait_for(lambda: (tmp_path / "run" / "checkpoints" / "manifest.json").exists())
    since = time.time()
    process.send_signal(number)
    assert process.wait(60) != 0
    check_all_end(tmp_path, since)
    assert record_of(tmp_path / "run")["status"] == "interrupted"
    (line,) = (line for line in said(tmp_path).splitlines() if line.startswith("error: "))
    assert re.match("error: stopped by SIG(TERM|INT); resume it with ", line)
    assert "Error in atexit" not in said(tmp_path)


@pytest.mark.long
def test_torchrun_serves_each_run_of_a_sweep(tmp_path: Path) -> None:
    """Also those that follow a failed one."""
    words = (*DDP, "-m", "model=mlp", "epochs=1", "optimizer.lr=1e30,0.01", "seed=0,1", "sweep=s")
    process = start(tmp_path, TORCHRUN, *words)
    process.wait(200)
    wait_for(lambda: not processes_in(tmp_path))
    records = [record_of(file.parent) for file in sorted((tmp_path / "outputs/sweeps/s").glob("*/run.json"))]
    assert sorted(record["status"] for record in records) == ["failed", "failed", "finished", "finished"], said(
        tmp_path
    )


@pytest.mark.long
@pytest.mark.parametrize("launcher", [(), ("hydra/launcher=local", "hydra.launcher.n_jobs=2")])
def test_a_sweep_of_runs_in_two_processes(zygote: Zygote, tmp_path: Path, launcher: tuple[str, ...]) -> None:
    """Serially or with a launcher, a failed run does not stop the next."""
    words = (*DDP, "-m", "model=mlp", "epochs=1", "optimizer.lr=1e30,0.01", "sweep=s", *launcher)
    assert zygote.run("train.py", *words, cwd=tmp_path) != 0
    wait_for(lambda: not helpers_in(tmp_path))
    records = [record_of(file.parent) for file in sorted((tmp_path / "outputs/sweeps/s").glob("*/run.json"))]
    assert sorted(record["status"] for record in records) == ["failed", "finished"], said(tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("killed", ["helper", "rank 0"])
def test_a_sweep_whose_process_is_killed_goes_on(zygote: Zygote, tmp_path: Path, killed: str) -> None:
    """With a launcher the run is marked as failed, the next is started, and the same command resumes it."""
    words = (*WORDS, "-m", "seed=0,1", "sweep=s", "hydra/launcher=local", "hydra.launcher.n_jobs=1")
    dying = fault(signal.SIGKILL, 60, "training", int(killed == "helper"))
    assert zygote.run("train.py", *words, cwd=tmp_path, **dying) != 0
    wait_for(lambda: not helpers_in(tmp_path))
    runs = [file.parent for file in sorted((tmp_path / "outputs/sweeps/s").glob("*/run.json"))]
    assert [record_of(run)["status"] for run in runs] == ["failed", "failed"], said(tmp_path)
    assert zygote.run("train.py", *words, cwd=tmp_path) == 0, said(tmp_path)
    assert [record_of(run)["status"] for run in runs] == ["finished", "finished"]


@pytest.mark.long
def test_srun_s_tasks_are_one_run(tmp_path: Path) -> None:
    """Rank 0 holds the store until the others know that it is done: all end with 0, and nothing is on stderr."""
    words = (*(word for word in DDP if "processes" not in word), "model=mlp", "epochs=1", "hydra.run.dir=run")
    tasks = [start(tmp_path, TRAIN, *words, **world_of(rank, "srun", "23456")) for rank in range(2)]
    assert [task.wait(120) for task in tasks] == [0, 0], said(tmp_path)
    assert errors_in(tmp_path) == []
    assert record_of(tmp_path / "run")["status"] == "finished"


@pytest.mark.long
def test_a_run_goes_on_in_another_number_of_processes(zygote: Zygote, tmp_path: Path) -> None:
    """From 2 to 4 and to 1, each time within an epoch: it is announced, and only rounding differs."""
    words = changed("precision=fp64")
    assert zygote.run("train.py", *words, "hydra.run.dir=whole", cwd=tmp_path) == 0, said(tmp_path)
    stopped = fault(signal.SIGTERM, 20, "training", 0)
    assert zygote.run("train.py", *words, "hydra.run.dir=run", cwd=tmp_path, **stopped) == 143, said(tmp_path)
    again = (*CONF, "resume=run")
    assert zygote.run("train.py", *again, "strategy.run_on=4", cwd=tmp_path, **stopped) == 143, said(tmp_path)
    assert zygote.run("train.py", *again, "strategy.run_on=1", cwd=tmp_path) == 0, said(tmp_path)
    assert re.search(r"the run continues, but is not the same bit for bit: .*processes 4 \(was 2\)", said(tmp_path))
    assert "processes 1 (was 4)" in said(tmp_path)
    assert distance(tmp_path / "whole", tmp_path / "run") < 1e-10
