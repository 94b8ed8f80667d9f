"""A sweep's jobs, and the file that lists them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from microstep.utils.json_files import read_json_or_empty, write_json

SWEEP_FILE = "sweep.json"
MAX_SWEEP_FILE_BYTES = 2**26  #: bytes of it: some hundred thousand jobs


@dataclass(frozen=True)
class Job:
    """One run of a sweep, as it was typed and as it was composed."""

    number: int
    name: str  #: of its directory in the sweep's
    overrides: tuple[str, ...]
    config: DictConfig  #: checked


@dataclass(frozen=True)
class Sweep:
    """What one `-m` command describes."""

    directory: Path
    jobs: tuple[Job, ...]
    command: str  #: goes on with it: what is finished is skipped
    redo: bool  #: whether stale runs are to be run again
    progress: bool  #: whether bars are wanted

    def place(self, job: Job) -> Path:
        """Return a job's directory."""
        return self.directory / job.name


@dataclass(frozen=True)
class SweepPlan:
    """What is to be run of a sweep, and what isn't."""

    todo: tuple[Job, ...]
    finished: Mapping[str, str]  #: by a job's name, that of the directory which holds the same experiment, finished
    stale: Mapping[str, str]  #: by a job's name, what has changed since its run


def write_sweep_file(sweep: Sweep, plan: SweepPlan, errors: Mapping[str, str]) -> None:
    """Write sweep.json: what is asked for now, and what earlier commands of this name have asked for.

    Args:
        errors: by a run's name, how it ended that could not say so itself.
    """
    before = read_json_or_empty(sweep.directory / SWEEP_FILE, MAX_SWEEP_FILE_BYTES).get("jobs")
    jobs = dict(before) if isinstance(before, dict) else {}
    for job in sweep.jobs:
        if plan.finished.get(job.name, job.name) == job.name:  # else it was run under another name
            error = {"error": errors[job.name]} if job.name in errors else {}
            jobs[job.name] = {"overrides": list(job.overrides)} | error
    content = {"name": sweep.directory.name, "command": sweep.command, "jobs": jobs, "stale": dict(plan.stale)}
    write_json(sweep.directory / SWEEP_FILE, content)


STOP_FILE = ".stop"  #: file of a sweep's directory with the number of the signal that stops the sweep
