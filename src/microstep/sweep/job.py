"""Runs one job of a sweep, and resumes what an earlier attempt left in its directory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig

from microstep.config.allowlist import allowlist_from
from microstep.config.experiment import get_trusted_names
from microstep.config.hydra_job import get_config_directories, get_run_directory
from microstep.errors import format_error
from microstep.run.resume import AUTO_RESUME, ResumePlan, plan_auto_resume, should_resume

log = logging.getLogger(__name__)
Task = Callable[..., Any]  #: takes a job's config; that of train.py also takes `resumed`, the run that it resumes


def contained(task: Task, config: DictConfig) -> str | None:
    """Run one job of a sweep, and resume what an earlier one left. Return why it failed; `sys.exit` is a failure."""
    try:
        task(config, resumed=interrupted(config))
    except (Exception, SystemExit) as error:
        log.exception("the job failed")
        return format_error(error)
    return None


def interrupted(config: DictConfig) -> ResumePlan | None:
    """Return how to resume the run in a job's directory; None if there is none."""
    directory = get_run_directory()
    if not should_resume(AUTO_RESUME, directory):
        return None
    return plan_auto_resume(
        directory, config, allowlist_from(get_config_directories(), get_trusted_names(config), directory)
    )
