"""Plans a resume from the config of the run and the command line. Imports no torch: a mistake is reported at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from microstep.config.allowlist import Allowlist
from microstep.config.compose import Composer
from microstep.errors import ConfigError
from microstep.run.resume_overrides import (
    OVERRIDABLE_KEYS,
    ResumeOverrides,
    apply_overrides,
    check_same_experiment,
    resume_overrides,
    typed_keys,
)
from microstep.run.saved_run import SavedRun

AUTO_RESUME = "auto"  #: resume=auto: resume the run of the job's directory if there is one, else start one


@dataclass(frozen=True)
class ResumePlan:
    """Plan of a resume."""

    directory: Path
    config: DictConfig  #: of the run, with the overrides of all resumes
    changes: ResumeOverrides  #: by this resume
    finished: bool  #: whether nothing is left to do
    gate: Allowlist  #: names that the config may use


def plan_resume(directory: Path, composer: Composer, overrides: Sequence[str], allowlist: Allowlist) -> ResumePlan:
    """Return the plan of `resume=RUN_DIR`: the config of the run with the overrides of the command line.

    Args:
        directory: the run directory.
        composer: checks the overrides.
        overrides: words of the command line.
        allowlist: names that the config may use.

    Raises:
        ConfigError: if the directory holds no run, or the overrides describe another experiment.
    """
    keys = typed_keys(overrides)
    if "experiment" in keys:
        raise ConfigError(
            f"resume={directory}", "experiment= describes a whole run, and it has its own", "leave it out"
        )
    run = SavedRun.read(directory, "resume")
    config = run.config(allowlist)
    return make_resume_plan(run, config, composer.amended(config, overrides), keys, allowlist)


def plan_auto_resume(directory: Path, job: DictConfig, allowlist: Allowlist) -> ResumePlan:
    """Return the plan of `resume=auto` for the run in the directory of a job.

    Raises:
        ConfigError: if it is a run of another experiment; the line names each key and both values.
    """
    run = SavedRun.read(directory, "resume")
    config = run.config(allowlist)
    check_same_experiment(config, job, run.subject)
    return make_resume_plan(run, config, job, sorted(OVERRIDABLE_KEYS), allowlist)


def make_resume_plan(
    run: SavedRun, config: DictConfig, job: DictConfig, keys: Sequence[str], allowlist: Allowlist
) -> ResumePlan:
    """Return the plan of a resume that takes the values of some keys from the config of a job."""
    changes = resume_overrides(config, job, keys, run.subject)
    finished = run.record.status == "finished" and "epochs" not in changes
    return ResumePlan(
        run.directory.resolve(), apply_overrides(config, changes, run.subject), changes, finished, allowlist
    )


def should_resume(resume: str | None, directory: Path) -> bool:
    """Return whether a job resumes a run: one was named, or the directory of the job holds one."""
    return resume is not None and (resume != AUTO_RESUME or (directory / "config.yaml").exists())
