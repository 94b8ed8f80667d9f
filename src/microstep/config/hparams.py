"""What an experiment's settings are in a table: a column a key, of one type in every run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import NoneType
from typing import Any, get_args, get_type_hints

from omegaconf import DictConfig, OmegaConf

from microstep.config.experiment import asks_resolver, displayed, flatten
from microstep.config.schema import Experiment
from microstep.config.signatures import signature

Value = bool | int | float | str
LETTERS = 200  #: of a text, at most: a thousand class weights make no column


def settings_of(config: DictConfig, choices: Mapping[str, str]) -> dict[str, Value]:
    """Return an experiment's settings by dotted key; what can't change a result is left out, and what repeats another.

    A key that may be null is a text in every run, `null` or `1.0`: in TensorBoard's hparams tab a column of texts and
    numbers can't be sorted, and one without the nulls counts as the same in all runs.

    Args:
        choices: the options chosen, by group: `optimizer` is `adamw`. In a notebook it is what the group builds.
    """
    shown = displayed(config)
    texts = {*root_texts(), *part_texts(shown)}
    values = {key: value for key, value in flatten(shown) if not key.endswith("._target_") and not repeats(config, key)}
    groups = {key: target.rpartition(".")[2] for key, target in targets(shown).items()}
    rows = groups | {group: choices[group] for group in groups if choices.get(group)}
    return rows | {key: worded(value) if key in texts else plain(value) for key, value in values.items()}


def targets(node: Mapping[str, Any]) -> dict[str, str]:
    """Return what each part builds, by the part's dotted key."""
    return {key.removesuffix("._target_"): str(value) for key, value in flatten(node) if key.endswith("._target_")}


def repeats(config: DictConfig, key: str) -> bool:
    """Say whether a key is a reference to another: `accumulation.micro_batches` is `${accum}`."""
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    written = OmegaConf.to_container(node).get(name)  # type: ignore[union-attr]
    return isinstance(written, str) and "${" in written and not asks_resolver(written)


def root_texts() -> set[str]:
    """Return the root keys that may be null."""
    return {key for key, hint in get_type_hints(Experiment).items() if NoneType in get_args(hint)}


def part_texts(node: Mapping[str, Any]) -> set[str]:
    """Return the parts' keys that may be null, as far as their constructors tell."""
    known = {part: signature(target) for part, target in targets(node).items()}
    return {
        f"{part}.{key}"
        for part, found in known.items()
        if found
        for key, types in found.parameters.items()
        if "None" in types or key in found.nullable
    }


def plain(value: Any) -> Value:
    """Return a truth or a number as it is, anything else as text."""
    return value if isinstance(value, bool | int | float) else worded(value)


def worded(value: Any) -> str:
    """Return a value as one would type it."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= LETTERS else f"{text[: LETTERS - 1]}…"
