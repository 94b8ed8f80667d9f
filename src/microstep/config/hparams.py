"""An experiment's settings as TensorBoard hparams: one column for each key, of the same type in every run."""

import json
from collections.abc import Mapping
from types import NoneType
from typing import Any, get_args, get_type_hints

from omegaconf import DictConfig, OmegaConf

from microstep.config.experiment import flatten, public_experiment, uses_resolver
from microstep.config.schema import TrainConfig
from microstep.config.signatures import find_signature

HparamValue = bool | int | float | str
MAX_TEXT_LENGTH = 200  #: characters of a text; longer ones are cut


def extract_hparams(config: DictConfig, choices: Mapping[str, str]) -> dict[str, HparamValue]:
    """Return an experiment's settings by dotted key.

    Keys that can't change a result and references to other keys are left out. A key that may be null is text in every
    run (`null` or `1.0`): TensorBoard's hparams tab can't sort a column that mixes texts and numbers, and treats a
    column without the nulls as constant.

    A group's value is its option in `choices`, such as `adamw` for `optimizer`, or else the name of the constructor.
    """
    experiment = public_experiment(config)
    leaves = dict(flatten(experiment))
    targets = {key.removesuffix("._target_"): str(leaves[key]) for key in leaves if key.endswith("._target_")}
    root_texts = {key for key, hint in get_type_hints(TrainConfig).items() if NoneType in get_args(hint)}
    texts = root_texts | nullable_component_keys(targets)
    groups = {group: choices.get(group) or target.rpartition(".")[2] for group, target in targets.items()}
    return groups | {
        key: value if isinstance(value, bool | int | float) and key not in texts else format_hparam(value)
        for key, value in leaves.items()
        if not key.endswith("._target_") and not is_reference(config, key)
    }


def is_reference(config: DictConfig, key: str) -> bool:
    """Return True if a key refers to another: `accumulation.micro_batches` is `${accum}`."""
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    written = OmegaConf.to_container(node).get(name)  # type: ignore[union-attr]
    return isinstance(written, str) and "${" in written and not uses_resolver(written)


def nullable_component_keys(targets: Mapping[str, str]) -> set[str]:
    """Return the dotted keys of components whose constructors accept None, as far as their source shows."""
    return {
        f"{group}.{key}"
        for group, target in targets.items()
        if (signature := find_signature(target))
        for key, types in signature.parameters.items()
        if "None" in types or key in signature.nullable
    }


def format_hparam(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= MAX_TEXT_LENGTH else f"{text[: MAX_TEXT_LENGTH - 1]}…"
