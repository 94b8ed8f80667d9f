"""Checks the spelling and type of every override against the config that its groups make.

Hydra alone accepts `optimizer.lr=abc`, `+optimizer.momentun=…` and `~model` silently, and its errors take several
lines.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override, Quote, QuotedString
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from microstep.config.choices import CHECK_KEYS
from microstep.config.experiment import LOGGER, VERBATIM_KEYS, flatten
from microstep.config.signatures import Signature, find_signature
from microstep.errors import ConfigError

OVERRIDE_PATTERN = re.compile(r"(?P<prefix>\+{0,2})(?P<key>[^=+~]+)=(?P<value>.*)", re.DOTALL)
#: Keys that another key overrides.
EXCLUSIVE_KEYS = {"batch_size": "effective_batch_size", "epochs": "steps"}
REPEATS_KEY = "dataset.repeats"  #: its number is short for a list of `dataset.repeat`
TYPE_DESCRIPTIONS = {"int": "a whole number", "float": "a number", "bool": "true or false"}
TYPE_DESCRIPTIONS |= {"str": "text", "None": "null", "list": "a list"}


def quote_verbatim(override: str) -> str:
    """Quote the value of a key in `VERBATIM_KEYS`, so that commas, `=`, spaces and parentheses are taken literally.

    A single value that begins with `~` or `^` is quoted for any key, because Hydra's grammar has no such value.
    """
    match = OVERRIDE_PATTERN.fullmatch(override)
    verbatim = match and (match["key"] in VERBATIM_KEYS or re.fullmatch("[~^][^,]*", match["value"]))
    if not match or not verbatim or match["value"] in ("", "null"):
        return override
    if re.fullmatch(r"""(['"]).*\1""", match["value"], re.DOTALL):  # quoted already
        return override
    return f"{match['prefix']}{match['key']}={QuotedString(match['value'], Quote.single).with_quotes()}"


def typed_value(override: Override) -> str:
    return f"{override.key_or_group}={override.get_value_string()}"


def expand_repeats(overrides: Sequence[str]) -> list[str]:
    """Return overrides with `dataset.repeat=0,1,2` for `dataset.repeats=3`. Raise ConfigError if both are given."""
    keys = [word.partition("=")[0] for word in overrides]
    if REPEATS_KEY in keys and "dataset.repeat" in keys:
        raise ConfigError(
            overrides[keys.index(REPEATS_KEY)], "dataset.repeat= lists them already", "give one of the two"
        )
    return [
        f"dataset.repeat={list_repeats(value)}" if key == REPEATS_KEY else word
        for word in overrides
        for key, _, value in [word.partition("=")]
    ]


def list_repeats(count: str) -> str:
    if not re.fullmatch(r"[1-9]\d{0,2}", count):
        raise ConfigError(f"{REPEATS_KEY}={count}", "not a number of repeats", "give 1 to 999")
    return ",".join(map(str, range(int(count))))


def check_plain_overrides(overrides: Iterable[Override]) -> None:
    for override in overrides:
        typed = override.input_line or ""
        if override.key_or_group == REPEATS_KEY:
            raise ConfigError(typed, "it is several runs", "add -m, or give the number of one: dataset.repeat=0")
        if override.is_delete():
            raise ConfigError(typed, "an experiment needs all its parts", "choose another option instead")
        if override.is_sweep_override():
            group, values = override.key_or_group, override.get_value_string()
            several = f"write '{group}=[{values}]'" if group == LOGGER else "add -m to run one job for each"
            remedy = "a check takes one" if group in CHECK_KEYS else f"{several}, or quote them"
            remedy = "add -m search=tpe" if isinstance(override.value(), IntervalSweep) else remedy
            raise ConfigError(typed, "several values", remedy)


def check_exclusive_keys(overrides: Sequence[Override]) -> None:
    """Raise ConfigError if a key is typed beside another one that would override it silently."""
    typed = {o.key_or_group: o for o in overrides}
    for key, other in EXCLUSIVE_KEYS.items():
        if key in typed and other in typed and typed[other].value() is not None:
            raise ConfigError(typed[key].input_line or key, f"{other} sets it", "give one of the two")


def check_group_options(overrides: Iterable[Override]) -> None:
    for override in overrides:
        value, group = override.value(), override.key_or_group
        kinds = (str, list) if group == LOGGER else (str, type(None)) if group in ("experiment", "search") else str
        if not isinstance(value, kinds):
            reason = "a group takes the name of one option"
            raise ConfigError(typed_value(override), reason, "give one, or several with -m: a,b")


def check_override(override: Override, base: DictConfig) -> None:
    """Raise ConfigError if `base`, the config of the chosen groups, has no such key or one of another type."""
    key = override.key_or_group
    path, _, leaf = key.rpartition(".")
    node = OmegaConf.select(base, path) if path else base
    node = node if isinstance(node, DictConfig) else None
    if node is None or leaf not in set(node.keys()):
        check_added_key(override, base, node, leaf)
    elif override.is_add():
        raise ConfigError(override.input_line or key, "it is there already", f"write {key}=… without the +")
    else:
        check_type(override, allowed_types(node, leaf))


def check_added_key(override: Override, base: DictConfig, node: DictConfig | None, leaf: str) -> None:
    """Check a key that the config doesn't have. Only a parameter of the node's constructor may be added."""
    signature = find_node_signature(node)
    adds = override.is_add() or override.is_force_add()
    if signature and (leaf in signature.optional or override.key_or_group == "model.freeze"):  # builders apply it
        if not adds:
            subject = typed_value(override)
            raise ConfigError(subject, "it is not in the yaml", f"add it with +{subject}")
        check_type(override, signature.parameters.get(leaf, frozenset()))
    elif not (adds and node is not None and "_target_" in node and (not signature or signature.accepts_any_keyword)):
        raise unknown_key_error(override, base, node)


def unknown_key_error(override: Override, base: DictConfig, node: DictConfig | None) -> ConfigError:
    key, accepted = override.key_or_group, find_node_signature(node)
    path, _, leaf = key.rpartition(".")
    siblings = {*map(str, node or base), *(accepted.optional if accepted else ())} - {"hydra", "_target_"}
    prefix = f"{path}." if node is not None and path else ""
    names = sorted(f"{prefix}{name}" for name in siblings)
    paths = (key.split(".") for key, _ in flatten(OmegaConf.to_container(drop_hydra_node(base))))
    same_leaf = [".".join(parts[: parts.index(leaf) + 1]) for parts in paths if leaf in parts]
    return ConfigError(typed_value(override), "no such key", suggest_names(key, names, same_leaf))


def find_node_signature(node: DictConfig | None) -> Signature | None:
    target = node.get("_target_") if node is not None else None
    return find_signature(target) if isinstance(target, str) else None


def allowed_types(node: DictConfig, leaf: str) -> frozenset[str]:
    """Return the scalar types that schema, constructor or yaml allow for a key; empty if anything is allowed."""
    schema: Any = OmegaConf.get_type(node)
    if is_dataclass(schema):
        annotation = next((str(f.type) for f in fields(schema) if f.name == leaf), "")
        return frozenset(annotation.split(" | ")) & {"int", "float", "str", "bool", "None"}
    signature = find_node_signature(node)
    if signature and signature.parameters.get(leaf):
        return signature.parameters[leaf]
    if OmegaConf.is_missing(node, leaf) or node[leaf] is None:
        return frozenset()
    nullable = {"None"} if signature and leaf in signature.nullable else set()
    return frozenset({type_name(node[leaf]), *nullable})


def type_name(value: Any) -> str:
    if isinstance(value, list | ListConfig):
        return "list"
    if isinstance(value, dict | DictConfig):
        return "a group of keys"
    return "None" if value is None else type(value).__name__


def check_type(override: Override, types: frozenset[str]) -> None:
    value = override.value()
    text = value.text if isinstance(value, QuotedString) else value
    given = "str" if isinstance(value, QuotedString) else type_name(value)
    if not (isinstance(text, str) and text.startswith("${")):
        check_type_name(given, types, typed_value(override))


def check_type_name(given: str, types: frozenset[str], subject: str) -> None:
    if types and given not in types and not (given == "int" and "float" in types):
        accepted = " or ".join(TYPE_DESCRIPTIONS.get(t, t) for t in sorted(types))
        raise ConfigError(subject, f"it is {TYPE_DESCRIPTIONS.get(given, given)}", f"give {accepted}")


def suggest_names(name: str, names: Sequence[str], other_names: Sequence[str] = ()) -> str:
    """Return a remedy with `other_names` and the names nearest to `name`, three at most; all names if none is near."""
    near = list(dict.fromkeys([*other_names, *get_close_matches(name, names, n=3, cutoff=0.6)]))[:3]
    return f"did you mean {' or '.join(near)}?" if near else f"the options are {', '.join(names)}"


def drop_hydra_node(job: DictConfig) -> DictConfig:
    return drop_nodes(job, "hydra")


def drop_nodes(job: DictConfig, *keys: str) -> DictConfig:
    copy = job.copy()
    with open_dict(copy):
        for key in keys:
            copy.pop(key, None)
    return copy
