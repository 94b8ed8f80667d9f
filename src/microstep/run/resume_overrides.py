"""Checks and applies the overrides of a resume: only `epochs` may change the result of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from microstep.config.experiment import NEUTRAL_KEYS, RESUMABLE_KEYS, drop_keys, extract_experiment, flatten
from microstep.config.schema import CHECK_KEYS
from microstep.config.signatures import find_signature
from microstep.config.targets import current, renamed
from microstep.config.validation import check_config
from microstep.errors import ConfigError

ResumeOverrides = dict[str, Any]
RESUME_KEYS = frozenset({"resume", "trust", "sweep", "redo"})
OVERRIDABLE_KEYS = (NEUTRAL_KEYS | RESUMABLE_KEYS) - RESUME_KEYS - {*CHECK_KEYS}


def typed_keys(overrides: Sequence[str]) -> list[str]:
    """Return the keys of a command line, without those of Hydra."""
    keys = [override.lstrip("+~").split("=")[0].split("@")[0] for override in overrides]
    return [key for key in keys if not key.startswith("hydra") and key not in RESUME_KEYS]


def resume_overrides(run: DictConfig, job: DictConfig, keys: Sequence[str], subject: str) -> ResumeOverrides:
    """Return the values that the typed keys change in a run.

    Args:
        run: config of the run, with the overrides of earlier resumes.
        job: config that the command line describes.
        keys: keys that were typed.
        subject: beginning of an error: `resume=RUN_DIR`.

    Raises:
        ConfigError: if they describe another experiment; the line names each key and both values.
    """
    typed = dict(pair for key in keys for pair in flatten(OmegaConf.select(job, key), key))
    others = {*another_experiment(run, job)}
    changed = {
        key: value
        for key, value in typed.items()
        if (value != OmegaConf.select(run, key) if key in NEUTRAL_KEYS else key in others)
    }
    check_no_changes({key: value for key, value in changed.items() if key not in OVERRIDABLE_KEYS}, run, subject)
    if "epochs" in changed:
        check_epochs(run, changed["epochs"], subject)
    return changed


def check_same_experiment(run: DictConfig, job: DictConfig, subject: str) -> None:
    """Refuse a directory whose run is not the one that the command line describes."""
    others = another_experiment(run, job)
    check_no_changes({key: value for key, value in others.items() if key not in RESUMABLE_KEYS}, run, subject)


def another_experiment(run: DictConfig, job: DictConfig) -> dict[str, Any]:
    """Return what describes the job and is not so in the run; None for a key that only the run has."""
    have, want = (dict(flatten(renamed(extract_experiment(config), current))) for config in (run, job))
    return {key: want.get(key) for key in {**have, **want} if have.get(key) != want.get(key)}


def check_no_changes(changed: Mapping[str, Any], run: DictConfig, subject: str) -> None:
    """Refuse values that describe another experiment."""
    if changed:
        told = ", ".join(f"{key}={value} (it has {OmegaConf.select(run, key)})" for key, value in changed.items())
        raise ConfigError(subject, f"this is another experiment: {told}", "leave it as it was, or start a new run")


def check_epochs(run: DictConfig, epochs: int, subject: str) -> None:
    """Refuse fewer epochs, and more epochs if the learning rate depends on their number."""
    if epochs < run.epochs:
        raise ConfigError(f"epochs={epochs}", f"the run has {run.epochs}", "choose as many or more")
    known = find_signature(str(run.scheduler.get("_target_")))
    if known is None or "total_steps" in known.parameters or depends_on_epochs(run):
        reason = f"its learning rate was planned for {run.epochs} epochs"
        raise ConfigError(f"epochs={epochs}", reason, "start a new run, or use scheduler=constant next time")


def depends_on_epochs(run: DictConfig) -> bool:
    """Return whether another value of a config refers to the number of epochs."""
    longer = OmegaConf.merge(run, {"epochs": run.epochs + 1})
    one, other = (drop_keys(extract_experiment(config), {"epochs"}) for config in (run, longer))  # type: ignore[arg-type]
    return one != other


def apply_overrides(config: DictConfig, changes: Mapping[str, Any], subject: str) -> DictConfig:
    """Return a checked copy of a config with some values changed.

    Raises:
        ConfigError: if a value has a wrong type or is out of range.
    """
    copy = config.copy()
    for key, value in changes.items():
        try:
            OmegaConf.update(copy, key, value)
        except OmegaConfBaseException as error:
            raise ConfigError(subject, f"{key}={value}: {str(error).splitlines()[0]}", "mend it") from None
    check_config(copy)
    return copy
