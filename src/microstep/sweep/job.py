"""Runs one job of a sweep, and resumes the run that an earlier attempt left in its directory."""

import logging
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig

from microstep.config.allowlist import allowlist_from
from microstep.config.experiment import STUDY_KEYS, get_trusted_names
from microstep.config.hydra_job import get_config_directories, get_run_directory
from microstep.config.overrides import drop_nodes
from microstep.errors import Pruned, format_error
from microstep.run.record import RunRecord
from microstep.run.resume import AUTO_RESUME, ResumePlan, plan_auto_resume, should_resume

log = logging.getLogger(__name__)
#: Takes the config of a job; train.py's also takes `resumed`, the plan to resume its run.
JobFunction = Callable[..., Any]


def run_job(task: JobFunction, config: DictConfig) -> str | None:
    """Run or resume one job of a sweep. Return why it failed; `sys.exit` is a failure, too."""
    try:
        config = drop_nodes(config, *STUDY_KEYS)
        task(config, resumed=plan_job_resume(config))
    except Pruned as error:
        log.info(error.args[1])
    except (Exception, SystemExit) as error:
        log.exception("the job failed")
        return format_error(error)
    return None


def run_for_objective(task: JobFunction, config: DictConfig) -> float | None:
    """Run a job that a sweeper plugin of Hydra's has chosen. Return its monitored validation metric, to optimize."""
    task(drop_nodes(config, *STUDY_KEYS))
    record = RunRecord.read(get_run_directory())
    return record.metrics.get("val", {}).get(record.monitor or "")


def plan_job_resume(config: DictConfig) -> ResumePlan | None:
    directory = get_run_directory()
    if not should_resume(AUTO_RESUME, directory):
        return None
    allowlist = allowlist_from(get_config_directories(), get_trusted_names(config), directory)
    return plan_auto_resume(directory, config, allowlist)
