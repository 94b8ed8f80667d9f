"""What may be built, and asked for: all that your own command line and conf/ name; of a run directory's, only that."""

from __future__ import annotations

import re
from collections.abc import Collection, Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from microstep.config.experiment import uses_resolver
from microstep.config.targets import current
from microstep.errors import ConfigError

COLLECTIONS = (dict, list, tuple, set)  #: that yaml's tags make


@dataclass(frozen=True)
class Allowlist:
    """What a config may name. Make one with `trusting`; `own` is the one for the user's own config.

    Args:
        targets: that may be built, by their current names.
        interpolations: whole values that ask a resolver (`${oc.env:DATA}`), which runs code.
    """

    targets: Container[str]
    interpolations: Container[str]

    def __call__(self, node: Any, group: str) -> None:
        """Let a resolved node pass, or refuse what is to be built in it.

        Raises:
            ConfigError: for a target that isn't trusted, at any depth, or text that asks a resolver even so: a value
                put together from pieces of `${…}` would be resolved once more when it is built.
        """
        for target in find_targets(node):
            if current(target) not in self.targets:
                raise ConfigError(
                    f"{group}._target_={target}",
                    "the run directory names it, your own conf/ does not",
                    "put it into your conf/, or add trust=[…] if you know what it does",
                )
        self.insist(node, group)

    def insist(self, node: Any, subject: str) -> None:
        """Refuse a value that asks a resolver and isn't trusted to."""
        for text in iter_values(node):
            if uses_resolver(text) and text not in self.interpolations:
                reason = f"the run directory asks a resolver, your own conf/ does not: {text}"
                remedy = f"""write its value into config.yaml, or add trust='["{text}"]' if you know what it does"""
                raise ConfigError(subject, reason, remedy)


class AnyName(Container[str]):
    """Holds every name."""

    def __contains__(self, name: object) -> bool:
        return True


ALLOW_ALL = Allowlist(AnyName(), AnyName())  #: lets everything pass: the config is the user's own


def allowlist_from(
    directories: Iterable[Path], trust: Iterable[str] = (), run_dir: Path | None = None, other_runs: Iterable[Path] = ()
) -> Allowlist:
    """Return a gate for what the yamls below some directories name, and for what is trusted by name.

    Args:
        run_dir, others: never speak for themselves, though they may lie below one of the directories.

    Raises:
        ConfigError: for a file that is no yaml.
    """
    excluded = [path.resolve() for path in (run_dir, *other_runs) if path]
    contents = [read_yaml(file) for directory in directories for file in find_yamls(directory, excluded)]
    targets = {target for content in contents for target in find_targets(content)}
    texts = {text for content in contents for text in iter_values(content) if uses_resolver(text)}
    trusted = frozenset(trust)
    return Allowlist(
        frozenset(map(current, trusted | targets)),
        trusted | {text for text in texts if not has_nested_interpolation(text)},
    )


def find_yamls(directory: Path, excluded: Collection[Path]) -> Iterator[Path]:
    """Yield the yamls below a directory, in order, but for those of some runs."""
    files = filter(Path.is_file, sorted(directory.rglob("*.yaml")))
    yield from (file for file in files if not any(run in file.resolve().parents for run in excluded))


def read_yaml(file: Path) -> Any:
    """Return what one of the user's own yamls holds."""
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(str(file), str(error), "mend the yaml") from None


def has_nested_interpolation(text: str) -> bool:
    """Say whether a resolver is given another key's value, which in a run directory's config is a stranger's."""
    return "${" in re.sub(r"\$\{[^$]*?\}", "", text)  # what is left is a reference around another


def find_targets(node: Any) -> Iterator[str]:
    """Yield every `_target_` in a plain structure."""
    return (str(one["_target_"]) for one in nodes_in(node) if isinstance(one, dict) and "_target_" in one)


def iter_values(node: Any) -> Iterator[Any]:
    """Yield every value in a plain structure that isn't a collection itself."""
    return (one for one in nodes_in(node) if not isinstance(one, COLLECTIONS))


def nodes_in(node: Any) -> Iterator[Any]:
    """Yield a plain structure and all that is in it, at any depth."""
    yield node
    if isinstance(node, COLLECTIONS):
        for inner in node.values() if isinstance(node, dict) else node:
            yield from nodes_in(inner)
