"""Spelling and type of every override, held against the config that its groups make.

Hydra alone accepts `optimizer.lr=abc`, `+optimizer.momentun=…` and `~model` in silence, and reports what it does
refuse in several lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override, QuotedString
from omegaconf import DictConfig, ListConfig, OmegaConf

from microstep.config.experiment import flatten
from microstep.config.schema import CHECK_KEYS
from microstep.config.signatures import Signature, find_signature
from microstep.errors import ConfigError


def check_plain_override(override: Override) -> None:
    """Refuse what a single job can't hold."""
    if override.is_delete():
        raise ConfigError(
            override.input_line or "~", "an experiment needs all its parts", "choose another option instead"
        )
    if override.is_sweep_override():
        alone = override.key_or_group in CHECK_KEYS
        remedy = "a check takes one" if alone else "add -m to run one job for each, or quote them"
        raise ConfigError(override.input_line or "", "several values", remedy)


def refuse_intervals(override: Override) -> None:
    """Refuse a range to sample from: a sweep runs the values that it is given."""
    if isinstance(override.value(), IntervalSweep):
        remedy = f"list them: {override.key_or_group}=0.1,0.01, or let a sweeper choose: hydra/sweeper=NAME"
        raise ConfigError(override.input_line or "", "a sweep takes single values", remedy)


def example(override: Override) -> str:
    """Return an override with one of its values, or as it is if it has one."""
    value = override.value()
    if isinstance(value, IntervalSweep):
        return f"{override.get_key_element()}={value.start}"
    if not override.is_sweep_override():
        return override.input_line or ""
    return f"{override.get_key_element()}={next(override.sweep_string_iterator())}"


def check_batch_size_keys(overrides: Sequence[Override]) -> None:
    """Refuse a batch size that would be ignored in silence."""
    typed = {o.key_or_group: o for o in overrides}
    effective = typed.get("effective_batch_size")
    if effective is not None and effective.value() is not None and "batch_size" in typed:
        subject = typed["batch_size"].input_line or "batch_size"
        raise ConfigError(subject, "effective_batch_size sets it", "give one of the two")


def check_group_option(override: Override) -> None:
    """Refuse anything but one option's name for a group; only a recipe can be left out."""
    value = override.value()
    if not isinstance(value, str) and not (value is None and override.key_or_group == "experiment"):
        subject = f"{override.key_or_group}={override.get_value_string()}"
        raise ConfigError(subject, "a group takes the name of one option", "give one, or several with -m: a,b")


def check_override(override: Override, base: DictConfig) -> None:
    """Check one value against the config that its groups make."""
    key = override.key_or_group
    node, leaf = find_parent(base, key)
    if node is None or leaf not in set(node.keys()):
        check_added_key(override, base, node, leaf)
    elif override.is_add():
        raise ConfigError(override.input_line or key, "it is there already", f"write {key}=… without the +")
    else:
        check_type(override, allowed_types(base, node, leaf))


def find_parent(base: DictConfig, key: str) -> tuple[DictConfig | None, str]:
    """Return the node that holds (or would hold) a key, and the key's last part."""
    path, _, leaf = key.rpartition(".")
    node = OmegaConf.select(base, path) if path else base
    return (node if isinstance(node, DictConfig) else None), leaf


def check_added_key(override: Override, base: DictConfig, node: DictConfig | None, leaf: str) -> None:
    """Check a key that the config doesn't have: a constructor's parameter may be added, nothing else."""
    known = find_node_signature(node)
    adds = override.is_add() or override.is_force_add()
    if known and leaf in known.optional:
        if not adds:
            subject = f"{override.key_or_group}={override.get_value_string()}"
            raise ConfigError(subject, "it is not in the yaml", f"add it with +{subject}")
        check_type(override, known.parameters[leaf])
    elif not (adds and node is not None and "_target_" in node and (known is None or known.open)):
        raise unknown_key_error(override, base, node, known)


def unknown_key_error(
    override: Override, base: DictConfig, node: DictConfig | None, accepted: Signature | None
) -> ConfigError:
    """Return the error for a misspelt key, with the nearest names."""
    key = override.key_or_group
    path, _, leaf = key.rpartition(".")
    siblings = {*map(str, node or base), *(accepted.optional if accepted else ())} - {"hydra", "_target_"}
    prefix = f"{path}." if node is not None and path else ""
    names = sorted(f"{prefix}{name}" for name in siblings)
    written = (key.split(".") for key, _ in flatten(OmegaConf.to_container(drop_hydra_node(base))))
    same_leaf = [".".join(parts[: parts.index(leaf) + 1]) for parts in written if leaf in parts]
    return ConfigError(f"{key}={override.get_value_string()}", "no such key", suggest_names(key, names, same_leaf))


def find_node_signature(node: DictConfig | None) -> Signature | None:
    """Return what the constructor of a node accepts, as far as its source tells."""
    target = node.get("_target_") if node is not None else None
    return find_signature(target) if isinstance(target, str) else None


def allowed_types(base: DictConfig, node: DictConfig, leaf: str) -> frozenset[str]:
    """Return the scalar types that a key admits, by schema, yaml or constructor; empty where anything may go."""
    if node is base:
        return next((types_from_annotation(f.type) for f in fields(get_schema(base)) if f.name == leaf), frozenset())
    known = find_node_signature(node)
    if known and known.parameters.get(leaf):
        return known.parameters[leaf]
    shipped = types_from_value(None if OmegaConf.is_missing(node, leaf) else node[leaf])
    return shipped | {"None"} if shipped and known and leaf in known.nullable else shipped


def get_schema(base: DictConfig) -> type[Any]:
    """Return the dataclass under a root."""
    found = OmegaConf.get_type(base)
    assert found is not None
    return found


def types_from_annotation(annotation: Any) -> frozenset[str]:
    return frozenset(str(annotation).split(" | ")) & {"int", "float", "str", "bool", "None"}


def types_from_value(value: Any) -> frozenset[str]:
    """Return the type that a yaml's value stands for: a null says nothing."""
    return frozenset() if value is None else frozenset({type_name(value)})


def type_name(value: Any) -> str:
    if isinstance(value, list | ListConfig):
        return "list"
    if isinstance(value, dict | DictConfig):
        return "a group of keys"
    return "None" if value is None else type(value).__name__


TYPE_DESCRIPTIONS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "None": "null",
    "list": "a list",
}


def check_type(override: Override, types: frozenset[str]) -> None:
    """Check that a value has one of the admitted types."""
    value = override.value()
    text = value.text if isinstance(value, QuotedString) else value
    given = "str" if isinstance(value, QuotedString) else type_name(value)
    fits = not types or given in types or (given == "int" and "float" in types)
    if not fits and not (isinstance(text, str) and text.startswith("${")):
        wanted = " or ".join(TYPE_DESCRIPTIONS.get(t, t) for t in sorted(types))
        subject = f"{override.key_or_group}={override.get_value_string()}"
        raise ConfigError(subject, f"it is {TYPE_DESCRIPTIONS.get(given, given)}", f"give {wanted}")


def suggest_names(name: str, names: Sequence[str], other_names: Sequence[str] = ()) -> str:
    """Return advice naming the nearest names, or all of them."""
    near = list(dict.fromkeys([*other_names, *get_close_matches(name, names, n=3, cutoff=0.6)]))[:3]
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"the options are {', '.join(names)}"


def drop_hydra_node(job: DictConfig) -> DictConfig:
    """Return the job's own part, as Hydra hands it to a program."""
    copy = job.copy()
    OmegaConf.set_struct(copy, False)
    copy.pop("hydra", None)  # a run's own config has none
    OmegaConf.set_struct(copy, True)
    return copy
