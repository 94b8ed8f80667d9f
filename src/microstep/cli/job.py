"""Runs one job of a command line and reports its failure."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobStatus, configure_log, run_job
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, open_dict

from microstep.config.compose import Composer
from microstep.config.sweep_jobs import ComposedStudy
from microstep.errors import MicrostepError
from microstep.run.resume import ResumePlan
from microstep.sweep.definition import MakeJobs, Sweep
from microstep.sweep.job import JobFunction
from microstep.utils.files import expand_home
from microstep.utils.text import display_path

log = logging.getLogger(__name__)
RunSweep = Callable[[Sweep, JobFunction, DictConfig, HydraContext, MakeJobs], None]
PrepareSweep = Callable[[ComposedStudy | None], RunSweep]


class LoggedError(Exception):
    """Wraps an unexpected error (its cause) whose traceback is in a file (its argument)."""


def run(task: JobFunction, job: DictConfig, loader: ConfigLoader) -> Any:
    """Run a job in its `hydra.run.dir`. Raise an unexpected error as `LoggedError`; the job's log has its traceback."""
    with open_dict(job.hydra):
        job.hydra.mode = RunMode.RUN
        job.hydra.run.dir = expand_home(job.hydra.run.dir)
    callbacks, name = Callbacks(job), job.hydra.job.config_name
    configure_log(job.hydra.hydra_logging, job.hydra.verbose)
    callbacks.on_run_start(config=job, config_name=name)
    done = run_job(task, job, "hydra.run.dir", None, HydraContext(loader, callbacks))
    callbacks.on_run_end(config=job, config_name=name, job_return=done)
    if done.status == JobStatus.COMPLETED:
        return done.return_value
    error = done._return_value  # the property would print a line
    log.error("the job failed", exc_info=error)
    files = [Path(h.baseFilename) for h in logging.getLogger().handlers if isinstance(h, logging.FileHandler)]
    if files and not isinstance(error, MicrostepError):
        raise LoggedError(files[0]) from error
    raise error


@contextmanager
def multirun(config: DictConfig, loader: ConfigLoader) -> Iterator[HydraContext]:
    """Call Hydra's callbacks around a sweep, and yield the context for its launcher."""
    callbacks, name = Callbacks(config), config.hydra.job.config_name
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    callbacks.on_multirun_start(config=config, config_name=name)
    yield HydraContext(loader, callbacks)
    callbacks.on_multirun_end(config=config, config_name=name)


def format_already_finished(plan: ResumePlan) -> str:
    """Return a line for a run that has nothing left to do, with the typed values that are therefore not used."""
    said = "the run is finished already; epochs=N extends it, if its schedule allows that"
    unused = ", ".join(f"{key}={value}" for key, value in plan.overrides.items())
    return f"{display_path(plan.directory)}: {said}" + (f"; not used: {unused}" if unused else "")


@dataclass(frozen=True)
class CommandLine:
    """A command line of train.py, and the functions that run its jobs."""

    composer: Composer
    overrides: Sequence[str]
    text: str  #: as typed, including the program
    task: JobFunction
    prepare_sweep: PrepareSweep

    @cached_property
    def typed(self) -> dict[str, Override]:
        return {str(o.key_or_group): o for o in map(self.composer.parse, self.overrides)}

    def value(self, key: str) -> Any:
        return self.typed[key].value() if key in self.typed else None

    def run(self, job: DictConfig, directory: Path, resumed: ResumePlan | None = None) -> Any:
        with open_dict(job.hydra):
            job.hydra.run.dir = str(directory.resolve())
        return run(partial(self.task, resumed=resumed), job, self.composer.loader)
