"""How jobs start: each in a directory of its own, or in that of the run that it goes on with."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.util import find_spec
from itertools import starmap
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from microstep.cli.job import format_already_finished, multirun, run
from microstep.cli.paths import get_check_directory, get_hydra_directory
from microstep.config.allowlist import Allowlist, allowlist_from
from microstep.config.compose import Composer, lists_its_jobs, quote_verbatim
from microstep.config.experiment import get_trusted_names
from microstep.config.hydra_job import get_config_directories
from microstep.config.overrides import drop_hydra_node
from microstep.config.ranges import POSITIVE_INT
from microstep.config.validation import check_diagnostic_without_resume, check_diagnostic_without_sweep
from microstep.errors import ConfigError, Stopped
from microstep.run.directory import new_directory
from microstep.run.lock import directory_lock
from microstep.run.resume import AUTO_RESUME, ResumePlan, plan_auto_resume, plan_resume, should_resume
from microstep.sweep.definition import Job, Sweep
from microstep.sweep.job import Task
from microstep.utils.terminal import called
from microstep.utils.text import display_path

RunSweep = Callable[[Sweep, Task, DictConfig, HydraContext], None]
StartFunction = Callable[[], Any]


@dataclass(frozen=True)
class CommandLine:
    """What train.py was asked for, and what does it."""

    composer: Composer
    overrides: Sequence[str]
    text: str  #: as typed, the program included
    task: Task
    run_sweep: RunSweep

    @cached_property
    def typed(self) -> dict[str, Override]:
        """The overrides by key, whatever their form."""
        return {str(o.key_or_group): o for o in map(self.composer.parse, self.overrides)}

    def value(self, key: str) -> Any:
        """Return what was typed for a key; None if nothing was."""
        return self.typed[key].value() if key in self.typed else None

    def run(self, job: DictConfig, directory: Path, resumed: ResumePlan | None = None) -> Any:
        """Run a job in a directory."""
        with open_dict(job.hydra):
            job.hydra.run.dir = str(directory.resolve())
        return run(partial(self.task, resumed=resumed), job, self.composer.loader)


def prepare_start(line: CommandLine, sweeping: bool) -> StartFunction:
    """Return how the jobs of a command line start, once all of it is checked."""
    if sweeping:
        return partial(start_sweep, line, line.composer.jobs(line.overrides))
    if (name := line.value("sweep")) is not None:
        raise ConfigError(f"sweep={name}", "it names a sweep, and this is one run", "add -m, or leave it out")
    resume = line.value("resume")
    if resume in (None, AUTO_RESUME):
        return prepare_single_start(line, line.composer.job(line.overrides))
    check_diagnostic_without_resume(line.value("check"))
    directory = Path(str(resume))
    if "hydra.run.dir" in line.typed:
        raise ConfigError(f"resume={directory}", "it names the directory already", "leave hydra.run.dir= out")
    job = line.composer.load([str(o.input_line) for o in line.typed.values() if o.is_hydra_override()])
    gate = gate_of(job, directory, line.value("trust") or ())
    return partial(start_resumed_run, line, job, plan_resume(directory, line.composer, line.overrides, gate))


def gate_of(job: DictConfig, run_dir: Path, trust: Sequence[str]) -> Allowlist:
    """Return what the config of a run directory may name."""
    return allowlist_from(get_config_directories(job.hydra), trust, run_dir)


def prepare_single_start(line: CommandLine, job: DictConfig) -> StartFunction:
    """Return how a job that isn't part of a sweep starts."""
    if job.check is None:
        return partial(start_or_resume_run, line, job)
    if job.resume is not None:
        check_diagnostic_without_resume(job.check)
    return partial(start_check, line, job)


def start_check(line: CommandLine, job: DictConfig) -> Any:
    """Look at an experiment instead of training it; what is found goes to a directory of its own."""
    typed = "hydra.run.dir" in line.typed
    directory = get_hydra_directory(job, "hydra.run.dir") if typed else get_check_directory(job)
    with new_directory(directory, exact_name=typed, discard_on_error=True) as created, directory_lock(created):
        return line.run(job, created)


def start_or_resume_run(line: CommandLine, job: DictConfig) -> None:
    """Run one job, in a new directory or in that of its run that goes on."""
    directory, typed = get_hydra_directory(job, "hydra.run.dir"), "hydra.run.dir" in line.typed
    if directory == Path():
        raise ConfigError("hydra.run.dir=.", "a run needs a directory of its own", "name one")
    if job.resume == AUTO_RESUME and not typed:
        raise ConfigError("resume=auto", "each start has a new directory", "name one: hydra.run.dir=DIR")
    if should_resume(job.resume, directory):
        gate = gate_of(job, directory, get_trusted_names(job))
        start_resumed_run(line, job, plan_auto_resume(directory, drop_hydra_node(job), gate))
    else:
        start_new_run(line, job, directory, typed)


def start_new_run(line: CommandLine, job: DictConfig, directory: Path, exact: bool) -> None:
    """Run one job; where its config, its data or its machine won't do, no directory is left behind."""
    with (
        new_directory(directory, exact) as created,
        directory_lock(created),
        remedy_on_stop(format_resume_command(created)),
    ):
        line.run(job, created)


def start_resumed_run(line: CommandLine, job: DictConfig, plan: ResumePlan) -> None:
    """Go on with a run in its own directory.

    Args:
        job: for Hydra's own node; the experiment is the run's.
    """
    if plan.finished:
        print(format_already_finished(plan.directory))
        return
    with open_dict(job.hydra):
        job.hydra.output_subdir = None  # .hydra stays as it is
    with directory_lock(plan.directory), remedy_on_stop(format_resume_command(plan.directory)):
        line.run(job, plan.directory, plan)


def format_resume_command(directory: Path) -> str:
    """Return what goes on with a run."""
    return f"{called('train')} resume={shlex.quote(display_path(directory))} goes on"


@contextmanager
def remedy_on_stop(remedy: str) -> Iterator[None]:
    """Let a signal's line say how to go on."""
    try:
        yield
    except Stopped as stopped:
        stopped.remedy = remedy
        raise


def start_sweep(line: CommandLine, jobs: list[DictConfig]) -> None:
    """Run what is left of a sweep; a job that fails is contained, and told of at the end.

    A sweeper of Hydra's other than the default one starts all of its jobs, and ends with the first that fails.
    """
    directory = get_hydra_directory(jobs[0], "hydra.sweep.dir")
    named = jobs[0].sweep is not None or "hydra.sweep.dir" in line.typed
    check_sweep_resume(jobs[0].resume, named)
    check_diagnostic_without_sweep(jobs[0].check)
    check_launcher(jobs[0])
    listed = tuple(starmap(make_job, enumerate(jobs)))
    check_unique_names([job.name for job in listed])
    with new_directory(directory, exact_name=named) as created, directory_lock(created):
        command = line.text if named else f"{line.text} sweep={created.name}"
        described = Sweep(created, listed, command, jobs[0].redo is not None, jobs[0].progress)
        config = line.composer.multirun([*line.overrides, quote_verbatim(f"hydra.sweep.dir={created.resolve()}")])
        with remedy_on_stop(f"{command} goes on"), multirun(config, line.composer.loader) as context:
            if lists_its_jobs(config.hydra.sweeper):
                line.run_sweep(described, line.task, config, context)
            else:
                sweeper = Plugins.instance().instantiate_sweeper(
                    hydra_context=context, task_function=line.task, config=config
                )
                sweeper.sweep(arguments=list(config.hydra.overrides.task))


def make_job(number: int, composed: DictConfig) -> Job:
    """Return one job of a sweep, whose directory is known from now on."""
    with read_write(composed), open_dict(composed):
        composed.hydra.job.num = composed.hydra.job.id = number
    name = str(get_hydra_directory(composed, "hydra.sweep.subdir"))
    overrides = tuple(OmegaConf.to_container(composed.hydra.overrides.task) or ())
    return Job(number, name, tuple(map(str, overrides)), drop_hydra_node(composed))


def check_launcher(job: DictConfig) -> None:
    """Refuse a launcher whose package isn't installed, or a number of runs at once that can't be."""
    launcher, choice = job.hydra.launcher, job.hydra.runtime.choices["hydra/launcher"]
    package = ".".join(str(launcher._target_).split(".")[:2])
    if find_spec(package) is None:
        reason = f"{package.rpartition('.')[2].replace('_', '-')} is not installed"
        raise ConfigError(f"hydra/launcher={choice}", reason, f"pip install -e '.[{choice}]'")
    at_once = launcher.get("n_jobs", 1)
    if type(at_once) is not int or not (at_once == -1 or at_once in POSITIVE_INT):
        reason = "it is no number of runs"
        raise ConfigError(f"hydra.launcher.n_jobs={at_once}", reason, "give at least 1, or -1 for one a core")


def check_sweep_resume(resume: str | None, has_name: bool) -> None:
    """Refuse to resume a sweep otherwise than by its name."""
    if resume not in (None, AUTO_RESUME):
        raise ConfigError(f"resume={resume}", "it is one run, and -m starts several", "leave -m out, or resume=auto")
    if resume == AUTO_RESUME and not has_name:
        raise ConfigError("resume=auto", "each start of a sweep has a new directory", "name it: sweep=NAME")


def check_unique_names(names_of_jobs: list[str]) -> None:
    """Refuse a sweep over what can't change a result: its jobs would be one run."""
    twins = [name for name, times in Counter(names_of_jobs).items() if times > 1]
    if twins:
        reason = "several jobs have this name: they differ in nothing that can change a result"
        raise ConfigError(twins[0], reason, "sweep over something else, or over seed=0,1,…")
