"""Starts jobs, each in a new directory or in that of the run that it resumes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from hydra.types import RunMode
from omegaconf import DictConfig, open_dict

from microstep.cli.job import CommandLine, format_already_finished
from microstep.cli.paths import get_check_directory, get_hydra_directory
from microstep.cli.sweep_start import prepare_sweep
from microstep.config.allowlist import allowlist_from
from microstep.config.experiment import get_trusted_names
from microstep.config.hydra_job import get_config_directories
from microstep.config.overrides import drop_hydra_node
from microstep.config.sweep_jobs import check_study_keys, find_study_key
from microstep.config.validation import refuse_check
from microstep.errors import ConfigError, Stopped
from microstep.run.directory import check_left_by_start, new_directory, was_started_in
from microstep.run.lock import directory_lock
from microstep.run.record import RunRecord
from microstep.run.resume import AUTO_RESUME, LENGTH_KEYS, ResumePlan, plan_auto_resume, plan_resume, should_resume
from microstep.utils.files import expand_home
from microstep.utils.terminal import run_command

StartFunction = Callable[[], Any]
NO_RUN = ("it examines a new experiment, not a run", "leave resume= out")  #: reason and remedy of check= with resume=


def prepare_start(line: CommandLine, sweeping: bool) -> StartFunction:
    base = line.composer.compose_base(line.overrides)
    if sweeping or base.hydra.mode == RunMode.MULTIRUN:
        return prepare_sweep(line)
    check_study_keys([*line.typed.values()], base)
    if study := find_study_key([*line.typed.values()], base):
        raise ConfigError(study, "it chooses the runs of a sweep", "add -m, or leave it out")
    for key in ("sweep", "hydra.sweep.dir", "hydra.sweep.subdir"):
        if (name := line.value(key)) is not None:
            raise ConfigError(f"{key}={name}", "it names a sweep, and this is one run", "add -m, or leave it out")
    if line.value("replay") is not None:
        return prepare_saved_run(line, "replay", start_check)
    if (resume := line.value("resume")) not in (None, AUTO_RESUME):
        return prepare_saved_run(line, "resume", start_resumed_run)
    job = line.composer.compose_job(line.overrides)
    if resume is not None:
        refuse_check(job.check, *NO_RUN)
    return partial(start_or_resume_run if job.check is None else start_check, line, job)


def prepare_saved_run(line: CommandLine, key: str, start: Callable[..., Any]) -> StartFunction:
    directory = Path(expand_home(str(line.value(key))))
    refuse_check(line.value("check"), NO_RUN[0], f"leave {key}= out")
    if key == "resume" and "hydra.run.dir" in line.typed:
        raise ConfigError(f"resume={directory}", "it names the directory already", "leave hydra.run.dir= out")
    for other in ("resume", *LENGTH_KEYS) if key == "replay" else ():
        if (value := line.value(other)) is not None:
            raise ConfigError(f"{other}={value}", "replay= repeats a step of a run as it was", f"leave {other}= out")
    job = line.composer.compose_unchecked([str(o.input_line) for o in line.typed.values() if o.is_hydra_override()])
    allowlist = allowlist_from(get_config_directories(job.hydra), line.value("trust") or (), directory)
    plan = plan_resume(directory, line.composer, line.overrides, allowlist, key)
    job.replay, job.window = line.value("replay"), line.value("window")
    return partial(start, line, job, plan)


def start_check(line: CommandLine, job: DictConfig, replayed: ResumePlan | None = None) -> Any:
    typed, subject = "hydra.run.dir" in line.typed, f"replay_{replayed.directory.name}" if replayed else ""
    directory = get_hydra_directory(job, "hydra.run.dir") if typed else get_check_directory(job, subject)
    with new_directory(directory, exact_name=typed, discard_on_error=True, recognizes=was_started_in) as created:
        return line.run(job, created, replayed)


def start_or_resume_run(line: CommandLine, job: DictConfig) -> None:
    """Resume a run, or run a job in a new directory, which is removed if config, data or device are unsuitable."""
    directory, typed = get_hydra_directory(job, "hydra.run.dir"), "hydra.run.dir" in line.typed
    if directory == Path():
        raise ConfigError("hydra.run.dir=.", "a run needs a directory of its own", "name one")
    if job.resume == AUTO_RESUME and not typed:
        raise ConfigError("resume=auto", "each start has a new directory", "name one: hydra.run.dir=DIR")
    if should_resume(job.resume, directory):
        allowlist = allowlist_from(get_config_directories(job.hydra), get_trusted_names(job), directory)
        start_resumed_run(line, job, plan_auto_resume(directory, drop_hydra_node(job), allowlist))
    else:
        with new_directory(directory, typed) as created, resume_remedy(created):
            line.run(job, created)


def start_resumed_run(line: CommandLine, job: DictConfig, plan: ResumePlan) -> None:
    """Resume a run in its own directory. Only the `hydra` node of `job` is used; the experiment is that of the plan."""
    if plan.finished:
        print(format_already_finished(plan))
        return
    with open_dict(job.hydra):
        job.hydra.output_subdir = None  # keeps the run's .hydra unchanged
    check_left_by_start(plan.directory, was_started_in)
    with directory_lock(plan.directory), resume_remedy(plan.directory):
        line.run(job, plan.directory, plan)


@contextmanager
def resume_remedy(directory: Path) -> Iterator[None]:
    """Add the command that resumes a stopped run. A signal that arrives after the run has finished is ignored."""
    before = RunRecord.read(directory)  # of a finished run if more epochs follow
    try:
        yield
    except Stopped as stopped:
        if (directory / "config.yaml").exists():
            stopped.remedy = f"resume it with {run_command('resume', directory)}"
        record = RunRecord.read(directory)
        if record.status != "finished" or record == before:
            raise
