"""As much of Slurm as submitit uses, on one machine: `sbatch`, `srun`, `sacct`, `scontrol`, `scancel`.

`python -m tests.sweep.slurm NAME WORDS…` is one of the commands, `installed` puts all of them into a directory for
PATH. $FAKE_SLURM is a directory: JOB_TASK.state is a task's state, JOB.sbatch the script, JOB_TASK.srun what its step
was started with. An array's limit is kept, and what is queued again starts once more; time limits are not kept.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ("sbatch", "srun", "sacct", "scontrol", "scancel")


def installed(directory: Path) -> Path:
    """Make the commands in a directory, and return it."""
    directory.mkdir()
    for name in COMMANDS:
        words = shlex.join([sys.executable, str(Path(__file__).resolve()), name])
        (directory / name).write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        (directory / name).chmod(0o755)
    return directory


def home() -> Path:
    return Path(os.environ["FAKE_SLURM"])


def options(script: str) -> dict[str, str]:
    """Return what a script asks of sbatch."""
    lines = re.findall(r"^#SBATCH --(.+)$", script, re.MULTILINE)
    pairs = (shlex.split(line)[0].partition("=") for line in lines)
    return {key: value for key, _, value in pairs}


def sbatch(file: str) -> None:
    """Take a script as it is now, and run it in the background."""
    job = str(7001 + len(list(home().glob("*.sbatch"))))
    script = Path(file).read_text()
    (home() / f"{job}.sbatch").write_text(script)
    tasks = re.fullmatch(r"(\d+)-(\d+)%(\d+)", options(script).get("array", ""))
    names = [f"{job}_{n}" for n in range(int(tasks[1]), int(tasks[2]) + 1)] if tasks else [job]
    for name in names:
        tell(name, "PENDING")
    command = [sys.executable, __file__, "controller", job, tasks[3] if tasks else "1", *names]
    nothing = subprocess.DEVNULL
    subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True)
    print(f"Submitted batch job {job}")


def controller(job: str, limit: str, *names: str) -> None:
    """Run a job's tasks, as many at once as may be."""
    with ThreadPoolExecutor(int(limit)) as pool:
        list(pool.map(lambda name: run_task(job, name), names))


def run_task(job: str, name: str) -> None:
    """Run a task to its end; where it is put into the queue again, once more."""
    script = home() / f"{job}.sbatch"
    asked = options(script.read_text())
    number = int(name.partition("_")[2] or 0)
    array = {"SLURM_ARRAY_JOB_ID": job, "SLURM_ARRAY_TASK_ID": str(number)} if "_" in name else {}
    cores = {"SLURM_CPUS_PER_TASK": asked["cpus-per-task"]} if "cpus-per-task" in asked else {}
    environment = os.environ | {"SLURM_JOB_ID": f"{int(job) + 100 + number}"} | array | cores
    tell(name, "RUNNING")
    done = subprocess.run(["bash", script], env=environment)
    if (home() / f"{name}.requeue").exists():
        (home() / f"{name}.requeue").unlink()
        (home() / f"{name}.requeued").touch()
        return run_task(job, name)
    return tell(name, "FAILED" if done.returncode else "COMPLETED")


def srun(*words: str) -> None:
    """Run one task of a step; since Slurm 22.05 it doesn't take over how many cores sbatch was asked for."""
    given, at = {}, 0
    while words[at].startswith("--"):
        alone = words[at] == "--unbuffered"
        given[words[at]] = "" if alone else words[at + 1]
        at += 1 if alone else 2
    job, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    name = f"{job}_{task}" if job else os.environ["SLURM_JOB_ID"]
    os.environ.pop("SLURM_CPUS_PER_TASK", None)
    if "SRUN_CPUS_PER_TASK" in os.environ:
        os.environ["SLURM_CPUS_PER_TASK"] = os.environ["SRUN_CPUS_PER_TASK"]
    step = {"NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0", "JOB_NUM_NODES": "1", "JOB_NODELIST": "node1"}
    os.environ.update({f"SLURM_{key}": value for key, value in step.items()})
    about = {key: value for key, value in os.environ.items() if key.startswith(("SLURM_", "OMP_"))}
    (home() / f"{name}.srun").write_text(json.dumps(about))
    for standard, option in ((1, "--output"), (2, "--error")):
        file = given[option].replace("%A", str(job)).replace("%a", str(task)).replace("%j", name).replace("%t", "0")
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), standard)
    os.execvp(words[at], words[at:])


def sacct(*_words: str) -> None:
    """Say how all tasks are."""
    print("JobID|State|NodeList")
    for file in sorted(home().glob("*.state")):
        print(f"{file.stem}|{file.read_text()}|node1")


def scontrol(what: str, name: str) -> None:
    """Put a task into the queue again: it is told to stop."""
    assert what == "requeue"
    (home() / f"{name}.requeue").touch()
    send(name, signal.SIGTERM)


def scancel(*words: str) -> None:
    """Send a task a signal: `scancel NAME --signal USR2`."""
    name, option, signal_name = words
    assert option == "--signal"
    send(name, signal.Signals[f"SIG{signal_name.removeprefix('SIG')}"])


def send(name: str, signum: int) -> None:
    """Send a signal to all processes of a task's step, as Slurm does: not to the script."""
    wanted = {f"SLURM_ARRAY_JOB_ID={name.partition('_')[0]}", f"SLURM_ARRAY_TASK_ID={name.partition('_')[2]}"}
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            environment = (directory / "environ").read_bytes().decode(errors="replace").split("\0")
            if wanted <= set(environment) and "SLURM_PROCID=0" in environment and int(directory.name) != os.getpid():
                os.kill(int(directory.name), signum)


def tell(name: str, state: str) -> None:
    """Take note of a task's state, in one go."""
    (home() / f"{name}.new").write_text(state)
    (home() / f"{name}.new").replace(home() / f"{name}.state")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
