"""Jobs of a sweep, and sweep.json, the file that lists them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from omegaconf import DictConfig

from microstep.config.names import list_settings, safe_name
from microstep.run.directory import was_started_in
from microstep.run.record import RunRecord, of_type
from microstep.run.saved_run import SavedRun
from microstep.utils.json_files import read_json_or_empty, write_json

SWEEP_FILE = "sweep.json"
MAX_SWEEP_FILE_BYTES = 2**26  #: enough for some hundred thousand jobs
STOP_FILE = ".stop"  #: file of a sweep's directory with the number of the signal that stops the sweep


@dataclass(frozen=True)
class Job:
    """One run of a sweep."""

    number: int
    name: str  #: of the run directory, relative to the sweep's directory
    overrides: tuple[str, ...]  #: as typed
    config: DictConfig  #: composed from the overrides, and checked


@dataclass(frozen=True)
class Sweep:
    """Jobs of one `-m` command."""

    directory: Path
    jobs: tuple[Job, ...]
    command: str  #: continues the sweep: it skips the finished runs
    redo: bool  #: whether to run stale runs again
    progress: bool  #: whether to show progress bars
    elsewhere: bool = False  #: whether jobs may run on other machines
    is_study: bool = False  #: then a run that diverged or was pruned is a result, and no line tells test metrics
    settings: Mapping[str, Any] = field(default_factory=dict)  #: arguments of the function that runs a job
    study: Mapping[str, Any] = field(default_factory=dict)  #: what sweep.json tells about the study that chose the jobs

    def get_directory(self, job: Job) -> Path:
        return self.directory / job.name

    def has_ended(self, record: RunRecord) -> bool:
        return record.status == "finished" or (self.is_study and record.is_result)


class Study(Protocol):
    """Chooses the runs of a sweep by the results of earlier ones, a generation at a time."""

    @property
    def most_jobs(self) -> int:
        """Number of runs that the sweep has at most."""

    @property
    def title(self) -> str:
        """Describe the study in the line that is printed at the start."""

    @property
    def description(self) -> Mapping[str, Any]:
        """Return the content of sweep.json about the study, so far."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Arguments of the function that runs the jobs of the next generation."""

    def ask(self) -> Sequence[Sequence[str]]:
        """Return the overrides of each run of the next generation; none if the study is over."""

    def tell(self, runs: Sequence[SavedRun]) -> str:
        """Take the runs of that generation, in the same order. Return what is known now; nothing is printed for ''."""

    def conclude(self) -> str:
        """Return what is printed at the end."""


#: Returns the jobs of some overrides, composed and checked.
MakeJobs = Callable[[Sequence[Sequence[str]]], tuple[Job, ...]]


@dataclass(frozen=True)
class SweepPlan:
    """Jobs of a sweep that are run, and the reasons for which the others are not."""

    jobs_to_run: tuple[Job, ...]
    finished: Mapping[str, str]  #: name of a job → name of the finished run of the same experiment
    stale: Mapping[str, str]  #: name of a job → what has changed since its run


def rename_jobs(jobs: Iterable[Job], directory: Path) -> tuple[Job, ...]:
    """Return jobs under the names that earlier commands of the sweep gave them.

    The name of a new job gets eight digits of a hash if it is that of a job with other overrides.
    """
    listed = of_type(read_json_or_empty(directory / SWEEP_FILE, MAX_SWEEP_FILE_BYTES).get("jobs"), dict)
    names = {
        tuple(list_settings(map(str, of_type(of_type(job, dict).get("overrides"), list)))): name
        for name, job in listed.items()
        if directory.resolve() in (directory / name).resolve().parents
    }
    renamed = []
    for job in jobs:
        settings = tuple(list_settings(job.overrides))
        new_name = safe_name(job.name, settings) if job.name in listed else job.name
        renamed.append(replace(job, name=names.get(settings, new_name)))
    return tuple(renamed)


def is_left_by_sweep(directory: Path) -> bool:
    listed = read_json_or_empty(directory / SWEEP_FILE, MAX_SWEEP_FILE_BYTES).get("jobs")
    only_runs = all(path.is_dir() and was_started_in(path) for path in directory.glob("*"))
    return was_started_in(directory) or isinstance(listed, dict) or only_runs


def write_sweep_file(sweep: Sweep, plan: SweepPlan, errors: Mapping[str, str]) -> None:
    """Write sweep.json, with jobs of earlier commands kept; `errors` has what a run's process reported, by name."""
    before = read_json_or_empty(sweep.directory / SWEEP_FILE, MAX_SWEEP_FILE_BYTES)
    jobs, stale = (dict(of_type(before.get(key), dict)) for key in ("jobs", "stale"))
    stale = {name: part for name, part in stale.items() if name not in {job.name for job in sweep.jobs}}
    for job in sweep.jobs:
        if plan.finished.get(job.name, job.name) == job.name:  # otherwise listed under the name of its run
            error = {"error": errors[job.name]} if job.name in errors else {}
            jobs[job.name] = {"overrides": list(job.overrides)} | error
    content = {"name": sweep.directory.name, "command": sweep.command, "jobs": jobs, "stale": stale | dict(plan.stale)}
    study = {"study": dict(sweep.study)} if sweep.study else {}
    write_json(sweep.directory / SWEEP_FILE, content | study)
