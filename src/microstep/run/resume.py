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
    ALLOWED,
    Amendments,
    amended,
    amendments,
    refuse_another_experiment,
    typed_keys,
)
from microstep.run.saved_run import SavedRun

AUTO = "auto"  #: resume=auto: resume the run of the job's directory if there is one, else start one


@dataclass(frozen=True)
class Resumption:
    """Plan of a resume."""

    directory: Path
    config: DictConfig  #: of the run, with the overrides of all resumes
    changes: Amendments  #: by this resume
    finished: bool  #: whether nothing is left to do
    gate: Allowlist  #: names that the config may use


def named(directory: Path, composer: Composer, overrides: Sequence[str], allowlist: Allowlist) -> Resumption:
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
    return resumption(run, config, composer.amended(config, overrides), keys, allowlist)


def automatic(directory: Path, job: DictConfig, allowlist: Allowlist) -> Resumption:
    """Return the plan of `resume=auto` for the run in the directory of a job.

    Raises:
        ConfigError: if it is a run of another experiment; the line names each key and both values.
    """
    run = SavedRun.read(directory, "resume")
    config = run.config(allowlist)
    refuse_another_experiment(config, job, run.subject)
    return resumption(run, config, job, sorted(ALLOWED), allowlist)


def resumption(
    run: SavedRun, config: DictConfig, job: DictConfig, keys: Sequence[str], allowlist: Allowlist
) -> Resumption:
    """Return the plan of a resume that takes the values of some keys from the config of a job."""
    changes = amendments(config, job, keys, run.subject)
    finished = run.record.status == "finished" and "epochs" not in changes
    return Resumption(run.directory.resolve(), amended(config, changes, run.subject), changes, finished, allowlist)


def goes_on(resume: str | None, directory: Path) -> bool:
    """Return whether a job resumes a run: one was named, or the directory of the job holds one."""
    return resume is not None and (resume != AUTO or (directory / "config.yaml").exists())
