"""Starts jobs, each in a new directory or in that of the run that it resumes."""

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import starmap
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from microstep.cli.job import format_already_finished, multirun, run
from microstep.cli.paths import get_check_directory, get_hydra_directory
from microstep.config.allowlist import allowlist_from
from microstep.config.compose import Composer, quote_verbatim
from microstep.config.experiment import get_trusted_names
from microstep.config.hydra_job import get_config_directories
from microstep.config.overrides import drop_hydra_node
from microstep.config.sweep_jobs import compose_jobs, lists_its_jobs
from microstep.config.validation import check_launcher, check_unique_names, refuse_check
from microstep.errors import ConfigError, Stopped
from microstep.run.directory import check_left_by_start, new_directory, was_started_in
from microstep.run.lock import directory_lock
from microstep.run.record import RunRecord
from microstep.run.resume import AUTO_RESUME, ResumePlan, plan_auto_resume, plan_resume, should_resume
from microstep.sweep.definition import Job, Sweep, is_left_by_sweep, rename_jobs
from microstep.sweep.job import JobFunction
from microstep.utils.files import expand_home
from microstep.utils.terminal import called
from microstep.utils.text import display_path

RunSweep = Callable[[Sweep, JobFunction, DictConfig, HydraContext], None]
StartFunction = Callable[[], Any]
NO_RUN = ("it examines a new experiment, not a run", "leave resume= out")  #: reason and remedy of check= with resume=


@dataclass(frozen=True)
class CommandLine:
    """A command line of train.py, and the functions that run its jobs."""

    composer: Composer
    overrides: Sequence[str]
    text: str  #: as typed, including the program
    task: JobFunction
    run_sweep: RunSweep

    @cached_property
    def typed(self) -> dict[str, Override]:
        return {str(o.key_or_group): o for o in map(self.composer.parse, self.overrides)}

    def value(self, key: str) -> Any:
        return self.typed[key].value() if key in self.typed else None

    def run(self, job: DictConfig, directory: Path, resumed: ResumePlan | None = None) -> Any:
        with open_dict(job.hydra):
            job.hydra.run.dir = str(directory.resolve())
        return run(partial(self.task, resumed=resumed), job, self.composer.loader)


def prepare_start(line: CommandLine, sweeping: bool) -> StartFunction:
    if sweeping or line.composer.compose_base(line.overrides).hydra.mode == RunMode.MULTIRUN:
        return partial(start_sweep, line, compose_jobs(line.composer, line.overrides))
    for key in ("sweep", "hydra.sweep.dir", "hydra.sweep.subdir"):
        if (name := line.value(key)) is not None:
            raise ConfigError(f"{key}={name}", "it names a sweep, and this is one run", "add -m, or leave it out")
    resume = line.value("resume")
    if resume not in (None, AUTO_RESUME):
        return prepare_resume(line, Path(expand_home(str(resume))))
    job = line.composer.compose_job(line.overrides)
    if resume is not None:
        refuse_check(job.check, *NO_RUN)
    return partial(start_or_resume_run if job.check is None else start_check, line, job)


def prepare_resume(line: CommandLine, directory: Path) -> StartFunction:
    refuse_check(line.value("check"), *NO_RUN)
    if "hydra.run.dir" in line.typed:
        raise ConfigError(f"resume={directory}", "it names the directory already", "leave hydra.run.dir= out")
    job = line.composer.compose_unchecked([str(o.input_line) for o in line.typed.values() if o.is_hydra_override()])
    allowlist = allowlist_from(get_config_directories(job.hydra), line.value("trust") or (), directory)
    return partial(start_resumed_run, line, job, plan_resume(directory, line.composer, line.overrides, allowlist))


def start_check(line: CommandLine, job: DictConfig) -> Any:
    typed = "hydra.run.dir" in line.typed
    directory = get_hydra_directory(job, "hydra.run.dir") if typed else get_check_directory(job)
    with new_directory(directory, exact_name=typed, discard_on_error=True, recognizes=was_started_in) as created:
        return line.run(job, created)


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
            stopped.remedy = f"resume it with {called('train')} resume={shlex.quote(display_path(directory))}"
        record = RunRecord.read(directory)
        if record.status != "finished" or record == before:
            raise


@contextmanager
def remedy_on_stop(remedy: str) -> Iterator[None]:
    try:
        yield
    except Stopped as stopped:
        stopped.remedy = remedy
        raise


def start_sweep(line: CommandLine, configs: list[DictConfig]) -> None:
    """Run the unfinished jobs of a sweep. Failures of jobs are reported at the end."""
    first = configs[0]
    if "hydra.run.dir" in line.typed:
        reason = "-m gives each run a directory of its own"
        raise ConfigError(f"hydra.run.dir={first.hydra.run.dir}", reason, "name the sweep: sweep=NAME")
    directory = get_hydra_directory(first, "hydra.sweep.dir")
    named = first.sweep is not None or "hydra.sweep.dir" in line.typed
    check_sweep_resume(first.resume, named)
    refuse_check(first.check, "it examines one experiment, and -m starts several", "leave -m out")
    check_launcher(first)
    jobs = tuple(starmap(make_job, enumerate(configs)))
    check_unique_names([job.name for job in jobs])
    if named and "hydra.sweep.subdir" not in line.typed:
        jobs = rename_jobs(jobs, directory)
    with new_directory(directory, named, recognizes=is_left_by_sweep) as created:
        command = line.text if named else f"{line.text} sweep={created.name}"
        elsewhere = not {"_internal", "hydra_joblib_launcher"} & {*str(first.hydra.launcher._target_).split(".")}
        sweep = Sweep(created, jobs, command, first.redo is not None, first.progress, elsewhere)
        sweep_dir = quote_verbatim(f"hydra.sweep.dir={created.resolve()}")
        overrides = [*line.overrides, sweep_dir, "hydra.mode=MULTIRUN"]
        config = line.composer.compose_unchecked(overrides, RunMode.MULTIRUN)
        with remedy_on_stop(f"resume it with {command}"), multirun(config, line.composer.loader) as context:
            if lists_its_jobs(config.hydra.sweeper):
                line.run_sweep(sweep, line.task, config, context)
            else:  # another sweeper of Hydra's starts all of its jobs, and stops at the first failure
                instantiate = Plugins.instance().instantiate_sweeper
                sweeper = instantiate(hydra_context=context, task_function=line.task, config=config)
                sweeper.sweep(arguments=list(config.hydra.overrides.task))


def make_job(number: int, config: DictConfig) -> Job:
    with read_write(config), open_dict(config):
        config.hydra.job.num = config.hydra.job.id = number
    name = str(get_hydra_directory(config, "hydra.sweep.subdir"))
    overrides = tuple(OmegaConf.to_container(config.hydra.overrides.task) or ())
    return Job(number, name, tuple(map(str, overrides)), drop_hydra_node(config))


def check_sweep_resume(resume: str | None, named: bool) -> None:
    if resume not in (None, AUTO_RESUME):
        raise ConfigError(f"resume={resume}", "it is one run, and -m starts several", "leave -m out, or resume=auto")
    if resume == AUTO_RESUME and not named:
        raise ConfigError("resume=auto", "each start of a sweep has a new directory", "name it: sweep=NAME")
