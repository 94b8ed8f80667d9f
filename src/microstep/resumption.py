"""What a resume goes on with: the run's own config and what was typed. Imports no torch: it is known before a start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from microstep.amendments import (
    ALLOWED,
    Amendments,
    amended,
    amendments,
    earlier,
    refuse_another_experiment,
    typed_keys,
)
from microstep.composer import Composer
from microstep.directories import status_of
from microstep.errors import ConfigError
from microstep.gate import Gate
from microstep.run_config import run_config

AUTO = "auto"  #: resume=auto: go on where there is a run, else start


@dataclass(frozen=True)
class Resumption:
    """A run to be taken up again."""

    directory: Path
    config: DictConfig  #: its own, amended
    changes: Amendments  #: by this resume
    finished: bool  #: there is nothing left to do
    gate: Gate  #: says which `_target_`s of its config may be built


def named(directory: Path, composer: Composer, overrides: Sequence[str], gate: Gate) -> Resumption:
    """Return how `resume=RUN_DIR` goes on: with the run's own config, against which the words are held.

    Args:
        directory: what the run left behind.
        composer: checks the words.
        overrides: the words of the command line.
        gate: says what the run's config may name.

    Raises:
        ConfigError: where it is no run directory, or the words would make another run of it.
    """
    keys = typed_keys(overrides)
    if "experiment" in keys:
        raise ConfigError(
            f"resume={directory}", "experiment= describes a whole run, and it has its own", "leave it out"
        )
    run = config_of(directory, gate)
    return resumption(directory, run, composer.amended(run, overrides), keys, gate)


def automatic(directory: Path, job: DictConfig, gate: Gate) -> Resumption:
    """Return how `resume=auto` goes on with what is in the job's directory: it has to be the job's own run.

    Raises:
        ConfigError: where it is the run of another experiment, with each key and both values.
    """
    run = config_of(directory, gate)
    refuse_another_experiment(run, job, f"resume={directory}")
    return resumption(directory, run, job, sorted(ALLOWED), gate)


def resumption(directory: Path, run: DictConfig, job: DictConfig, keys: Sequence[str], gate: Gate) -> Resumption:
    """Return how a run goes on with what some keys are in another config."""
    subject = f"resume={directory}"
    changes = amendments(run, job, keys, subject)
    finished = status_of(directory) == "finished" and "epochs" not in changes
    return Resumption(directory.resolve(), amended(run, changes, subject), changes, finished, gate)


def config_of(directory: Path, gate: Gate) -> DictConfig:
    """Return a run's own config, as earlier resumes have left it; an error of its directory names what was typed."""
    subject = f"resume={directory}"
    try:
        config = run_config(directory, gate)
    except ConfigError as error:
        blamed, reason, remedy = error.args
        raise ConfigError(subject if blamed == f"run={directory}" else blamed, reason, remedy) from None
    return amended(config, earlier(directory), subject)


def goes_on(resume: str | None, directory: Path) -> bool:
    """Say whether a job takes a run up: it was named, or there is one in the job's directory."""
    return resume is not None and (resume != AUTO or (directory / "config.yaml").exists())
