"""Finds the processes that torchrun, srun or this program has started together. Imports no torch."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
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
    launcher: str  #: torchrun, srun, or this program


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


def count_gpus(environment: Mapping[str, str] = os.environ) -> int:
    """Return the number of GPUs of NVIDIA that a process may use, without importing torch."""
    devices = [file for file in Path("/dev").glob("nvidia*") if file.name[6:].isdecimal()]
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    return len(devices) if visible is None else min(len(devices), len([one for one in visible.split(",") if one]))
