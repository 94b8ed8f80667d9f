"""From what was typed to a checked config, without torch: spelling, type and range of every override.

Hydra alone accepts `optimizer.lr=abc`, `+optimizer.momentun=…`, `~model` and `precision=[fp32,amp]` in silence, and
reports what it does refuse in several lines. So each override is held against the config as its groups make it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper  # it cuts a sweep into jobs
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from microstep import config as schema
from microstep.errors import ConfigError
from microstep.signatures import Signature, signature

CONF = Path(__file__).resolve().parents[2] / "conf"
OVERRIDE = re.compile(r"(?P<prefix>\+{0,2})(?P<key>[^=+~]+)=(?P<value>.*)", re.DOTALL)


def quote(override: str) -> str:
    """Quote a value that means itself, a path above all, so that commas, `=`, spaces and parentheses in it mean themselves."""
    match = OVERRIDE.fullmatch(override)
    if not match or match["key"] not in schema.VERBATIM_KEYS or match["value"][:1] in ("", "'", '"'):
        return override
    if match["value"] == "null":
        return override
    return f"{match['prefix']}{match['key']}={QuotedString(match['value'], Quote.single).with_quotes()}"


def compose(overrides: Sequence[str] = (), config_dir: Path | str = CONF, config_name: str = "train") -> DictConfig:
    """Return the checked config of one job, for use from Python.

    Args:
        overrides: as on the command line: `["precision=amp", "accum=2"]`.
        config_dir: where the yamls are; by default the project's own.

    Raises:
        ConfigError: naming the override that can't be right, why, and the nearest names or the options.
    """
    with Composer.opened(Path(config_dir), config_name) as composer:
        return without_hydra(composer.job([quote(o) for o in overrides]))


class Composer:
    """Composes and checks the jobs of one command line. Make one with `opened`."""

    def __init__(self, config_name: str) -> None:
        self.config_name = config_name
        self.loader = GlobalHydra.instance().config_loader()
        self.bases: dict[tuple[str, ...], DictConfig] = {}

    @classmethod
    @contextmanager
    def opened(cls, config_dir: Path, config_name: str) -> Iterator[Composer]:
        """Yield a composer over a directory of yamls; Hydra's global state is put back afterwards."""
        schema.register()
        with initialize_config_dir(str(config_dir.resolve()), version_base="1.3"):
            yield cls(config_name)

    def jobs(self, overrides: Sequence[str]) -> list[DictConfig]:
        """Return the checked config of every job of a sweep."""
        parsed = [self.parse(o) for o in overrides]
        if "effective_batch_size" in {o.key_or_group for o in parsed}:
            refuse_both_batch_sizes(parsed)
        return [self.job(job) for batch in BasicSweeper.split_arguments(parsed, None) for job in batch]

    def job(self, overrides: Sequence[str]) -> DictConfig:
        """Return one job's checked config, Hydra's own node included."""
        parsed = [self.parse(o) for o in overrides]
        for override in parsed:
            refuse_deletions_and_sweeps(override)
        refuse_both_batch_sizes(parsed)
        choices = [o for o in parsed if self.is_group(o)]
        for override in choices:
            self.check_choice(override)
        base = self.base(tuple(str(o.input_line) for o in choices))
        for override in parsed:
            if override not in choices and not override.is_hydra_override():
                check_override(override, base)
        job = self.load(overrides)
        schema.check(without_hydra(job))
        return job

    def parse(self, override: str) -> Override:
        """Return the parsed override."""
        try:
            return OverridesParser.create(config_loader=self.loader).parse_override(override)
        except HydraException:
            raise ConfigError(
                override, "not of the form key=value", "quote values that hold , = ( ) or spaces"
            ) from None

    def base(self, choices: tuple[str, ...]) -> DictConfig:
        """Return the config that the choices alone make: the schema of everything else that was typed."""
        if choices not in self.bases:
            self.bases[choices] = self.load(choices)
        return self.bases[choices]

    def load(self, overrides: Sequence[str]) -> DictConfig:
        try:
            return hydra_compose(self.config_name, list(overrides), return_hydra_config=True)
        except (HydraException, OmegaConfBaseException) as error:
            raise translated(error, overrides) from None

    def is_group(self, override: Override) -> bool:
        return override.package is not None or override.key_or_group in self.groups()

    def groups(self) -> list[str]:
        top = self.loader.list_groups("")
        return [*top, *(f"hydra/{name}" for name in self.loader.list_groups("hydra"))]

    def check_choice(self, override: Override) -> None:
        """Check that a group's override names one of its options."""
        group, value = override.key_or_group, override.value()
        if value is None:
            return
        options = self.loader.get_group_options(group, ObjectType.CONFIG)
        if not isinstance(value, str):
            subject = f"{group}={override.get_value_string()}"
            raise ConfigError(subject, "a group takes the name of one option", f"the options are {', '.join(options)}")
        if value not in options and self.loader.get_group_options(f"{group}/{value}") == []:
            raise ConfigError(f"{group}={value}", "no such option", suggestion(value, options))


def refuse_deletions_and_sweeps(override: Override) -> None:
    """Refuse what a single job can't hold."""
    if override.is_delete():
        raise ConfigError(
            override.input_line or "~", "an experiment needs all its parts", "choose another option instead"
        )
    if override.is_sweep_override():
        raise ConfigError(override.input_line or "", "several values", "add -m to run one job for each, or quote them")


def refuse_both_batch_sizes(overrides: Sequence[Override]) -> None:
    """Refuse a batch size that would be ignored in silence."""
    typed = {o.key_or_group: o for o in overrides}
    effective = typed.get("effective_batch_size")
    if effective is not None and effective.value() is not None and "batch_size" in typed:
        subject = typed["batch_size"].input_line or "batch_size"
        raise ConfigError(subject, "effective_batch_size sets it", "give one of the two")


def check_override(override: Override, base: DictConfig) -> None:
    """Check one value against the config that its groups make."""
    key = override.key_or_group
    node, leaf = parent_of(base, key)
    if node is None or leaf not in set(node.keys()):
        check_added(override, base, node, leaf)
    elif override.is_add():
        raise ConfigError(override.input_line or key, "it is there already", f"write {key}=… without the +")
    else:
        check_type(override, admitted(base, node, leaf))


def parent_of(base: DictConfig, key: str) -> tuple[DictConfig | None, str]:
    """Return the node that holds (or would hold) a key, and the key's last part."""
    path, _, leaf = key.rpartition(".")
    node = OmegaConf.select(base, path) if path else base
    return (node if isinstance(node, DictConfig) else None), leaf


def check_added(override: Override, base: DictConfig, node: DictConfig | None, leaf: str) -> None:
    """Check a key that the config doesn't have: a constructor's parameter may be added, nothing else."""
    known = signature_of(node)
    adds = override.is_add() or override.is_force_add()
    if known and leaf in known.parameters:
        if not adds:
            subject = f"{override.key_or_group}={override.get_value_string()}"
            raise ConfigError(subject, "it is not in the yaml", f"add it with +{subject}")
        check_type(override, known.parameters[leaf])
    elif not (adds and node is not None and "_target_" in node and (known is None or known.open)):
        raise unknown(override, base, node, known)


def unknown(override: Override, base: DictConfig, node: DictConfig | None, known: Signature | None) -> ConfigError:
    """Return the error for a misspelt key, with the nearest names."""
    key = override.key_or_group
    path, _, leaf = key.rpartition(".")
    siblings = [*(node or base), *(known.parameters if known else ())]
    prefix = f"{path}." if node is not None and path else ""
    names = [f"{prefix}{name!s}" for name in siblings if name not in ("hydra", "_target_")]
    same_leaf = [name for name in all_keys(without_hydra(base)) if name.split(".")[-1] == leaf]
    return ConfigError(f"{key}={override.get_value_string()}", "no such key", suggestion(key, names, same_leaf))


def all_keys(node: DictConfig, prefix: str = "") -> Iterator[str]:
    """Yield every dotted key."""
    for key, value in node.items_ex(resolve=False):
        yield f"{prefix}{key!s}"
        if isinstance(value, DictConfig):
            yield from all_keys(value, f"{prefix}{key!s}.")


def signature_of(node: DictConfig | None) -> Signature | None:
    """Return what the constructor of a node accepts, as far as its source tells."""
    target = node.get("_target_") if node is not None else None
    return signature(target) if isinstance(target, str) else None


def admitted(base: DictConfig, node: DictConfig, leaf: str) -> frozenset[str]:
    """Return the scalar types that a key admits, by schema, yaml or constructor; empty where anything may go."""
    if node is base:
        return next((from_annotation(f.type) for f in fields(schema_of(base)) if f.name == leaf), frozenset())
    known = signature_of(node)
    annotated = known.parameters.get(leaf, frozenset()) if known else frozenset()
    return annotated or from_value(None if OmegaConf.is_missing(node, leaf) else node[leaf])


def schema_of(base: DictConfig) -> type[Any]:
    """Return the dataclass under a root."""
    found = OmegaConf.get_type(base)
    assert found is not None
    return found


def from_annotation(annotation: Any) -> frozenset[str]:
    return frozenset(str(annotation).split(" | ")) & {"int", "float", "str", "bool", "None"}


def from_value(value: Any) -> frozenset[str]:
    """Return the type that a yaml's value stands for: a null says nothing."""
    return frozenset() if value is None else frozenset({kind(value)})


def kind(value: Any) -> str:
    if isinstance(value, list | ListConfig):
        return "list"
    if isinstance(value, dict | DictConfig):
        return "a group of keys"
    return "None" if value is None else type(value).__name__


NAMES = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "None": "null"}


def check_type(override: Override, types: frozenset[str]) -> None:
    """Check that a value has one of the admitted types."""
    value = override.value()
    text = value.text if isinstance(value, QuotedString) else value
    given = "str" if isinstance(value, QuotedString) else kind(value)
    fits = not types or given in types or (given == "int" and "float" in types)
    if not fits and not (isinstance(text, str) and text.startswith("${")):
        wanted = " or ".join(NAMES.get(t, t) for t in sorted(types))
        subject = f"{override.key_or_group}={override.get_value_string()}"
        raise ConfigError(subject, f"it is {NAMES.get(given, given)}", f"give {wanted}")


def suggestion(word: str, names: Sequence[str], also: Sequence[str] = ()) -> str:
    """Return advice naming the nearest names, or all of them."""
    near = list(dict.fromkeys([*also, *get_close_matches(word, names, n=3, cutoff=0.6)]))[:3]
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"the options are {', '.join(sorted(names))}"


def translated(error: Exception, overrides: Sequence[str]) -> ConfigError:
    """Return Hydra's or OmegaConf's refusal as one line."""
    cause = error.__cause__ or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    subject = getattr(cause, "full_key", None) or " ".join(overrides) or "config"
    return ConfigError(str(subject), lines[0] if lines else type(cause).__name__, "mend the command line or the yaml")


def without_hydra(job: DictConfig) -> DictConfig:
    """Return the job's own part, as Hydra hands it to a program."""
    copy = job.copy()
    OmegaConf.set_struct(copy, False)
    del copy["hydra"]
    OmegaConf.set_struct(copy, True)
    return copy
