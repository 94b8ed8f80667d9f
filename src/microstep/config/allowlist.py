"""Allowlist for the `_target_`s and resolvers in a run directory's config.

Only names that also occur in the user's conf/ or in `trust=` are allowed. The user's own config may name anything.
"""

import re
from collections.abc import Collection, Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from microstep.config.experiment import uses_resolver
from microstep.config.targets import current
from microstep.errors import ConfigError

COLLECTIONS = (dict, list, tuple, set)  #: types that yaml's tags build
TRANSFORM_PATTERN = re.compile(r"torchvision\.transforms\.v2\.[A-Z]\w*")  #: allowed: they run no code of others


@dataclass(frozen=True)
class Allowlist:
    """Checks the names in a config. `allowlist_from` makes one; `ALLOW_ALL` is the one for the user's own config."""

    targets: Container[str]  #: `_target_`s that may be built, by their current names
    interpolations: Container[str]  #: whole values that may use a resolver (`${oc.env:DATA}`), which runs code

    def __call__(self, node: Any, group: str) -> None:
        """Raise ConfigError if a resolved node has a target, at any depth, or a resolver that is not allowed.

        A value that is put together from pieces of `${…}` would be resolved again when it is built.
        """
        reason = "the run directory names it, your own conf/ does not"
        remedy = "put it into your conf/, or add trust=[…] if you know what it does"
        for target in find_targets(node):
            if current(target) not in self.targets and not TRANSFORM_PATTERN.fullmatch(target):
                raise ConfigError(f"{group}._target_={target}", reason, remedy)
        self.check_resolvers(node, group)

    def check_resolvers(self, node: Any, subject: str) -> None:
        for text in iter_values(node):
            if uses_resolver(text) and text not in self.interpolations:
                reason = f"the run directory uses a resolver, your own conf/ does not: {text}"
                remedy = f"""write its value into config.yaml, or add trust='["{text}"]' if you know what it does"""
                raise ConfigError(subject, reason, remedy)


class AnyName(Container[str]):
    """Contains every name."""

    def __contains__(self, name: object) -> bool:
        return True


ALLOW_ALL = Allowlist(AnyName(), AnyName())  #: for the user's own config


def allowlist_from(
    directories: Iterable[Path], trust: Iterable[str] = (), run_dir: Path | None = None, other_runs: Iterable[Path] = ()
) -> Allowlist:
    """Return the allowlist of the names in the user's directories, except those of runs below them, and in `trust`."""
    excluded = [path.resolve() for path in (run_dir, *other_runs) if path]
    contents = [read_yaml(file) for directory in directories for file in find_yamls(directory, excluded)]
    targets = {target for content in contents for target in find_targets(content)}
    texts = {text for content in contents for text in iter_values(content) if uses_resolver(text)}
    trusted = frozenset(trust)
    interpolations = trusted | {text for text in texts if not has_nested_interpolation(text)}
    return Allowlist(frozenset(map(current, trusted | targets)), interpolations)


def find_yamls(directory: Path, excluded: Collection[Path]) -> Iterator[Path]:
    files = filter(Path.is_file, sorted(directory.rglob("*.yaml")))
    return (file for file in files if not any(run in file.resolve().parents for run in excluded))


def read_yaml(file: Path) -> Any:
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(str(file), str(error), "correct the yaml") from None


def has_nested_interpolation(text: str) -> bool:
    """Return True if a resolver gets another key's value, which an untrusted config may set."""
    return "${" in re.sub(r"\$\{[^$]*?\}", "", text)  # the rest is a reference around another


def find_targets(node: Any) -> Iterator[str]:
    return (str(one["_target_"]) for one in iter_nodes(node) if isinstance(one, dict) and "_target_" in one)


def iter_values(node: Any) -> Iterator[Any]:
    """Yield every value in a plain structure that is no collection."""
    return (one for one in iter_nodes(node) if not isinstance(one, COLLECTIONS))


def iter_nodes(node: Any) -> Iterator[Any]:
    yield node
    if isinstance(node, COLLECTIONS):
        for inner in node.values() if isinstance(node, dict) else node:
            yield from iter_nodes(inner)
