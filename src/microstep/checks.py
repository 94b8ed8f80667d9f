"""What `check=` may ask for, instead of a training; and what can't be asked, as far as the command line tells."""

from __future__ import annotations

from pathlib import Path
from time import strftime

from omegaconf import DictConfig

from microstep.errors import ConfigError

CHECKS = ("accumulation", "precision", "drift")
ABOUT_CHECKS = ("check", "rule")  #: keys
CUTTING = ("accumulation", "drift")  #: those that are about micro-batches

#: The loops that check=accumulation knows, ours first.
RULES = (
    "weighted_mean",
    "mean_over_accum",
    "mean_of_means",
    "sum_of_means",
    "dropped_tail",
    "zero_grad_each",
    "clip_each",
    "scale_doubles",
)
OURS = RULES[0]


def refuse_empty_checks(config: DictConfig) -> None:
    """Refuse a check that would look at nothing.

    Raises:
        ConfigError: naming the key, and what to add.
    """
    if config.rule != OURS and config.check != "accumulation":
        reason = "it is a loop to be looked at, and no training is made with it"
        raise ConfigError(f"rule={config.rule}", reason, "add check=accumulation")
    if config.check in CUTTING and config.accum == 1:
        reason = f"check={config.check} compares a batch with its micro-batches, and there is one"
        raise ConfigError("accum=1", reason, "give accum=2 or more")
    if config.rule == "clip_each" and config.max_grad_norm is None:
        raise ConfigError("rule=clip_each", "it clips, and max_grad_norm is null", "add max_grad_norm=1.0")


def refuse_check_of_a_run(check: object) -> None:
    """Refuse to look at a run that is to be resumed."""
    if check is not None:
        raise ConfigError(f"check={check}", "it looks at a new experiment, not at a run", "leave resume= out")


def refuse_check_of_a_sweep(check: object) -> None:
    """Refuse to look at several experiments at once."""
    if check is not None:
        raise ConfigError(f"check={check}", "it looks at one experiment, and -m starts several", "leave -m out")


def place_of(job: DictConfig) -> Path:
    """Return where a check's files go, unless the command line says otherwise."""
    choices = job.hydra.runtime.choices
    name = f"{strftime('%Y-%m-%d_%H-%M-%S')}_{job.check}_{choices.dataset}_{choices.model}"
    return Path("outputs", "checks", name)
