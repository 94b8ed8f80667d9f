"""Finds the processes that torchrun, srun or this program has started together. Imports no torch."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path


@dataclass(frozen=True)
class World:
    """Processes that train one run together, as seen from one of them."""

    rank: int  #: number of this process, from 0
    size: int  #: number of processes
    local_rank: int  #: number of this process on its machine
    local_size: int  #: number of processes on its machine
    address: str  #: host of the store through which they meet
    port: int
    is_host: bool  #: whether this process holds the store; torchrun's agent may hold it
    launcher: str  #: torchrun, srun, or train: this program

    @property
    def core_shares(self) -> int:
        """Number of processes that share the cores of this one. srun binds each to cores of its own."""
        return 1 if self.launcher == "srun" else self.local_size


def find_world(environment: Mapping[str, str] = os.environ) -> World | None:
    """Return the processes that a launcher has started, or None if this one was started alone."""
    return find_torchrun_world(environment) or find_slurm_world(environment)


def find_torchrun_world(environment: Mapping[str, str]) -> World | None:
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT")
    if not all(environment.get(name, "").isdecimal() for name in names):
        return None
    rank, size, local_rank, local_size, port = (int(environment[name]) for name in names)
    is_host = rank == 0 and environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    address, launcher = environment.get("MASTER_ADDR", "127.0.0.1"), environment.get("MICROSTEP_LAUNCHER", "torchrun")
    return World(rank, size, local_rank, local_size, address, port, is_host, launcher)


def find_slurm_world(environment: Mapping[str, str]) -> World | None:
    """Return the tasks of a job step. A batch script without srun is one process, whatever was allocated."""
    names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_JOB_ID", "SLURM_STEP_ID")
    if not all(environment.get(name, "").isdecimal() for name in names) or environment["SLURM_STEP_NUM_TASKS"] == "1":
        return None
    rank, size, local_rank, job, step = (int(environment[name]) for name in names)
    tasks = re.match(r"\d+", environment.get("SLURM_STEP_TASKS_PER_NODE", ""))
    local_size = int(tasks[0]) if tasks else size
    address = environment.get("MASTER_ADDR") or first_host(environment.get("SLURM_STEP_NODELIST", "127.0.0.1"))
    port = int(environment.get("MASTER_PORT") or 20000 + (job * 31 + step) % 20000)
    return World(rank, size, local_rank, local_size, address, port, rank == 0, "srun")


def first_host(nodes: str) -> str:
    """Return the first host of a list such as `node[07-09,12],other`."""
    return re.sub(r"\[(\d+)[^]]*\]", r"\1", re.split(r",(?![^[]*\])", nodes)[0])


def list_gpus() -> list[str]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES lists, or else the indices of those that have a device file."""
    indices = (str(index) for index, _ in enumerate(Path("/dev").glob("nvidia[0-9]*")))
    listed = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(indices))
    return list(takewhile(lambda gpu: gpu not in ("", "-1"), map(str.strip, listed.split(","))))  # CUDA stops there
