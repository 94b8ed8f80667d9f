"""What may be typed when a run is resumed: nothing that changes what it comes to, but for more epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from microstep.checks import ABOUT_CHECKS
from microstep.config import NEUTRAL_KEYS, RESUMABLE_KEYS, check, experiment_of, flatten, without
from microstep.errors import ConfigError
from microstep.files import read_json
from microstep.signatures import signature
from microstep.targets import current, renamed

Amendments = dict[str, Any]
ABOUT_RESUMING = frozenset({"resume", "trust", "sweep", "redo"})
ALLOWED = (NEUTRAL_KEYS | RESUMABLE_KEYS) - ABOUT_RESUMING - {*ABOUT_CHECKS}


def typed_keys(overrides: Sequence[str]) -> list[str]:
    """Return the keys of a command line, less Hydra's own."""
    keys = [override.lstrip("+~").split("=")[0].split("@")[0] for override in overrides]
    return [key for key in keys if not key.startswith("hydra") and key not in ABOUT_RESUMING]


def amendments(run: DictConfig, job: DictConfig, keys: Sequence[str], subject: str) -> Amendments:
    """Return what of the typed keys is new to a run and may be.

    Args:
        run: the run's own config, earlier amendments included.
        job: the config that the command line makes.
        keys: those that were typed.
        subject: what an error begins with: `resume=RUN_DIR`.

    Raises:
        ConfigError: where they would make another run of it, naming each key and both values.
    """
    typed = dict(pair for key in keys for pair in flatten(OmegaConf.select(job, key), key))
    others = {*another_experiment(run, job)}
    changed = {
        key: value
        for key, value in typed.items()
        if (value != OmegaConf.select(run, key) if key in NEUTRAL_KEYS else key in others)
    }
    refuse({key: value for key, value in changed.items() if key not in ALLOWED}, run, subject)
    if "epochs" in changed:
        check_epochs(run, changed["epochs"], subject)
    return changed


def refuse_another_experiment(run: DictConfig, job: DictConfig, subject: str) -> None:
    """Refuse a directory whose run is not the one that the command line describes."""
    others = another_experiment(run, job)
    refuse({key: value for key, value in others.items() if key not in RESUMABLE_KEYS}, run, subject)


def another_experiment(run: DictConfig, job: DictConfig) -> dict[str, Any]:
    """Return what describes the job and is not so in the run; None for a key that only the run has."""
    have, want = (dict(flatten(renamed(experiment_of(config), current))) for config in (run, job))
    return {key: want.get(key) for key in {**have, **want} if have.get(key) != want.get(key)}


def refuse(others: Mapping[str, Any], run: DictConfig, subject: str) -> None:
    """Refuse what makes another run."""
    if others:
        told = ", ".join(f"{key}={value} (it has {OmegaConf.select(run, key)})" for key, value in others.items())
        raise ConfigError(subject, f"this is another experiment: {told}", "leave it as it was, or start a new run")


def check_epochs(run: DictConfig, epochs: int, subject: str) -> None:
    """Let epochs grow, where the learning rate doesn't depend on how many there will be."""
    if epochs < run.epochs:
        raise ConfigError(f"epochs={epochs}", f"the run has {run.epochs}", "choose as many or more")
    known = signature(str(run.scheduler.get("_target_")))
    if known is None or "total_steps" in known.parameters or depends_on_epochs(run):
        reason = f"its learning rate was planned for {run.epochs} epochs"
        raise ConfigError(f"epochs={epochs}", reason, "start a new run, or use scheduler=constant next time")


def depends_on_epochs(run: DictConfig) -> bool:
    """Say whether anything else in a config refers to the number of epochs."""
    longer = OmegaConf.merge(run, {"epochs": run.epochs + 1})
    one, other = (without(experiment_of(config), {"epochs"}) for config in (run, longer))  # type: ignore[arg-type]
    return one != other


def amended(config: DictConfig, changes: Mapping[str, Any], subject: str) -> DictConfig:
    """Return a config with some values changed, checked.

    Raises:
        ConfigError: where a key is none that a resume may change, or a value is of a wrong type or range.
    """
    copy = config.copy()
    for key, value in changes.items():
        if key not in ALLOWED:
            raise ConfigError(subject, f"run.json says that a resume changed {key}", "it may be damaged")
        try:
            OmegaConf.update(copy, key, value)
        except OmegaConfBaseException as error:
            raise ConfigError(subject, f"{key}={value}: {str(error).splitlines()[0]}", "mend it") from None
    check(copy)
    return copy


def earlier(run_dir: Path) -> Amendments:
    """Return what earlier resumes of a run changed, as run.json has it.

    Raises:
        ConfigError: where that is a reference: a run directory is not trusted, and a resolver runs code.
    """
    try:
        resumed = read_json(run_dir / "run.json").get("resumed", [])
        changes = {str(key): value for one in resumed for key, value in dict(one["overrides"]).items()}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    for key, value in changes.items():
        if "${" in str(value):
            reason = f"run.json says that a resume changed {key} to a reference"
            raise ConfigError(f"resume={run_dir}", reason, "it may be damaged")
    return changes
