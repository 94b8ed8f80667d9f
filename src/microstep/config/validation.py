"""Checks of a composed config: types, ranges, and combinations of keys that exclude each other."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from microstep.config.experiment import LITERAL_KEYS, micro_batch_size
from microstep.config.ranges import RANGES, Range
from microstep.config.schema import CHOICES, DEFAULT_RULE, MICRO_BATCH_CHECKS, SCHEMAS
from microstep.errors import ConfigError


def check_config(config: DictConfig) -> None:
    """Check ranges, finiteness, choices and that everything is resolved.

    Raises:
        ConfigError: naming the first key that can't be right.
    """
    ranges = RANGES | {f.name: f.metadata["range"] for f in get_schema_fields(config) if "range" in f.metadata}
    for key, value in iter_leaves(config):
        check_value(key, value, ranges.get(key), CHOICES.get(key))
    if "accum" in config:
        micro_batch_size(config)
        check_accum_matches(config)
        check_diagnostic_keys(config)


def check_accum_matches(config: DictConfig) -> None:
    """Refuse an accumulation that cuts otherwise than the root's `accum`, which everything reported is made from."""
    cut = config.accumulation.get("micro_batches", config.accum)
    if cut != config.accum:
        raise ConfigError(f"accumulation.micro_batches={cut}", f"accum={config.accum} sets it", f"write accum={cut}")


def get_schema_fields(config: DictConfig) -> tuple[Any, ...]:
    """Return the dataclass fields of a typed root; none for a plain one."""
    schema: Any = OmegaConf.get_type(config)
    return fields(schema) if schema in SCHEMAS.values() else ()


def check_value(key: str, value: Any, allowed: Range | None, choices: tuple[str, ...] | None) -> None:
    """Check one leaf."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{key}={value}", "not a finite number", f"give a number{f' {allowed}' if allowed else ''}")
    if allowed and isinstance(value, int | float) and not isinstance(value, bool) and value not in allowed:
        raise ConfigError(f"{key}={value}", "out of range", f"it must be {allowed}")
    if choices and value is not None and re.sub(r"^cuda:[0-9]+$", "cuda", str(value)) not in choices:
        raise ConfigError(f"{key}={value}", "no such option", f"the options are {', '.join(choices)}")


def iter_leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every (dotted key, resolved value) below a node.

    Raises:
        ConfigError: for a value that is missing or whose interpolation leads nowhere.
    """
    keys = range(len(node)) if isinstance(node, ListConfig) else list(node)
    for key in keys:
        name = f"{prefix}{key}"
        if name in LITERAL_KEYS:
            continue
        if OmegaConf.is_missing(node, key):
            raise ConfigError(f"{name}=???", "it has no value", f"give one: {name}=…")
        try:
            value = node[key]
        except OmegaConfBaseException as error:
            raise ConfigError(name, f"can't be resolved: {str(error).splitlines()[0]}", "mend the reference") from None
        if OmegaConf.is_config(value):
            yield from iter_leaves(value, f"{name}.")
        else:
            yield name, value


def check_diagnostic_keys(config: DictConfig) -> None:
    """Refuse a check that would look at nothing.

    Raises:
        ConfigError: naming the key, and what to add.
    """
    if config.rule != DEFAULT_RULE and config.check != "accumulation":
        reason = "it is a loop to be looked at, and no training is made with it"
        raise ConfigError(f"rule={config.rule}", reason, "add check=accumulation")
    if config.check in MICRO_BATCH_CHECKS and config.accum == 1:
        reason = f"check={config.check} compares a batch with its micro-batches, and there is one"
        raise ConfigError("accum=1", reason, "give accum=2 or more")
    if config.rule == "clip_each" and config.max_grad_norm is None:
        raise ConfigError("rule=clip_each", "it clips, and max_grad_norm is null", "add max_grad_norm=1.0")


def check_diagnostic_without_resume(check: object) -> None:
    """Refuse to look at a run that is to be resumed."""
    if check is not None:
        raise ConfigError(f"check={check}", "it looks at a new experiment, not at a run", "leave resume= out")


def check_diagnostic_without_sweep(check: object) -> None:
    """Refuse to look at several experiments at once."""
    if check is not None:
        raise ConfigError(f"check={check}", "it looks at one experiment, and -m starts several", "leave -m out")
