"""Run a job as Hydra does, with its log, `.hydra/`, HydraConfig and callbacks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra.core.config_loader import ConfigLoader
from hydra.core.utils import JobStatus, configure_log, run_job
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, open_dict

from microstep.config.allowlist import trusting
from microstep.config.experiment import trusted
from microstep.config.hydra_job import config_directories, run_directory
from microstep.errors import MicrostepError, summarised
from microstep.run.resume import AUTO, Resumption, automatic, goes_on
from microstep.utils.files import shown

log = logging.getLogger(__name__)
Task = Callable[..., Any]  #: takes a job's config; that of train.py also takes `resumed`, the run that it resumes


class Logged(Exception):  # noqa: N818
    """An unexpected error, its cause, whose traceback is in a file, its only argument."""


def run(task: Task, job: DictConfig, loader: ConfigLoader) -> Any:
    """Run a job in the directory that its `hydra.run.dir` names, and return what the task returns.

    Raises:
        Logged: for an unexpected error, once the job's log has its traceback.
        Exception: any other error of the task.
    """
    with open_dict(job.hydra):
        job.hydra.mode = RunMode.RUN
    callbacks, name = Callbacks(job), job.hydra.job.config_name
    configure_log(job.hydra.hydra_logging, job.hydra.verbose)
    callbacks.on_run_start(config=job, config_name=name)
    done = run_job(task, job, "hydra.run.dir", None, HydraContext(loader, callbacks))
    callbacks.on_run_end(config=job, config_name=name, job_return=done)
    if done.status == JobStatus.COMPLETED:
        return done.return_value
    error = done._return_value  # the property would print a line of its own
    log.error("the job failed", exc_info=error)
    files = [Path(h.baseFilename) for h in logging.getLogger().handlers if isinstance(h, logging.FileHandler)]
    if files and not isinstance(error, MicrostepError):
        raise Logged(files[0]) from error
    raise error


@contextmanager
def multirun(config: DictConfig, loader: ConfigLoader) -> Iterator[HydraContext]:
    """Call Hydra's callbacks around a sweep, and yield the context for its launcher."""
    callbacks, name = Callbacks(config), config.hydra.job.config_name
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    callbacks.on_multirun_start(config=config, config_name=name)
    yield HydraContext(loader, callbacks)
    callbacks.on_multirun_end(config=config, config_name=name)


def contained(task: Task, config: DictConfig) -> str | None:
    """Run one job of a sweep, and resume what an earlier one left. Return why it failed; `sys.exit` is a failure."""
    try:
        task(config, resumed=interrupted(config))
    except (Exception, SystemExit) as error:
        log.exception("the job failed")
        return summarised(error)
    return None


def interrupted(config: DictConfig) -> Resumption | None:
    """Return how to resume the run in a job's directory; None if there is none."""
    directory = run_directory()
    if not goes_on(AUTO, directory):
        return None
    return automatic(directory, config, trusting(config_directories(), trusted(config), directory))


def finished_already(directory: Path) -> str:
    """Return what is said of a run with nothing left to do."""
    return f"{shown(directory)}: the run is finished already; epochs=N lets it go further, where its schedule can"
