"""What an experiment's settings are in a table: a column a key, of one type in every run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import NoneType
from typing import Any, get_args, get_type_hints

from omegaconf import DictConfig, OmegaConf

from microstep.config.experiment import flatten, public_experiment, uses_resolver
from microstep.config.schema import TrainConfig
from microstep.config.signatures import find_signature

HparamValue = bool | int | float | str
MAX_TEXT_LENGTH = 200  #: of a text, at most: a thousand class weights make no column


def extract_hparams(config: DictConfig, choices: Mapping[str, str]) -> dict[str, HparamValue]:
    """Return an experiment's settings by dotted key; what can't change a result is left out, and what repeats another.

    A key that may be null is a text in every run, `null` or `1.0`: in TensorBoard's hparams tab a column of texts and
    numbers can't be sorted, and one without the nulls counts as the same in all runs.

    Args:
        choices: the options chosen, by group: `optimizer` is `adamw`. In a notebook it is what the group builds.
    """
    shown = public_experiment(config)
    texts = {*nullable_root_keys(), *nullable_component_keys(shown)}
    values = {
        key: value for key, value in flatten(shown) if not key.endswith("._target_") and not is_reference(config, key)
    }
    groups = {key: target.rpartition(".")[2] for key, target in iter_component_targets(shown).items()}
    rows = groups | {group: choices[group] for group in groups if choices.get(group)}
    return rows | {
        key: format_hparam(value) if key in texts else to_hparam_value(value) for key, value in values.items()
    }


def iter_component_targets(node: Mapping[str, Any]) -> dict[str, str]:
    """Return what each part builds, by the part's dotted key."""
    return {key.removesuffix("._target_"): str(value) for key, value in flatten(node) if key.endswith("._target_")}


def is_reference(config: DictConfig, key: str) -> bool:
    """Say whether a key is a reference to another: `accumulation.micro_batches` is `${accum}`."""
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    written = OmegaConf.to_container(node).get(name)  # type: ignore[union-attr]
    return isinstance(written, str) and "${" in written and not uses_resolver(written)


def nullable_root_keys() -> set[str]:
    """Return the root keys that may be null."""
    return {key for key, hint in get_type_hints(TrainConfig).items() if NoneType in get_args(hint)}


def nullable_component_keys(node: Mapping[str, Any]) -> set[str]:
    """Return the parts' keys that may be null, as far as their constructors tell."""
    known = {part: find_signature(target) for part, target in iter_component_targets(node).items()}
    return {
        f"{part}.{key}"
        for part, found in known.items()
        if found
        for key, types in found.parameters.items()
        if "None" in types or key in found.nullable
    }


def to_hparam_value(value: Any) -> HparamValue:
    """Return a truth or a number as it is, anything else as text."""
    return value if isinstance(value, bool | int | float) else format_hparam(value)


def format_hparam(value: Any) -> str:
    """Return a value as one would type it."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= MAX_TEXT_LENGTH else f"{text[: MAX_TEXT_LENGTH - 1]}…"
