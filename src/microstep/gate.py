"""Which `_target_`s may be built: your own command line's and conf/'s all, a run directory's only those."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from microstep.errors import ConfigError

Gate = Callable[[Any, str], None]
LARGEST = 2**20  #: bytes that a run's config.yaml may have


def own(node: Any, slot: str) -> None:
    """Let everything pass: the config is the user's own."""


def trusting(targets: frozenset[str]) -> Gate:
    """Return a gate that lets only these targets pass, nested ones too."""

    def gate(node: Any, slot: str) -> None:
        for target in targets_in(node):
            if target not in targets:
                raise ConfigError(
                    f"{slot}._target_={target}",
                    "the run directory names it, your own conf/ does not",
                    "put it into your conf/, or add trust=[…] if you know what it does",
                )

    return gate


def targets_in(node: Any) -> Iterator[str]:
    """Yield every `_target_` in a plain structure."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield str(node["_target_"])
        node = list(node.values())
    if isinstance(node, list | tuple | set):  # yaml's own tags make them all
        for inner in node:
            yield from targets_in(inner)


def targets_of(directories: Iterable[Path], trust: Iterable[str] = ()) -> frozenset[str]:
    """Return every `_target_` that the yamls below some directories name, and those trusted by name."""
    files = (file for directory in directories for file in sorted(directory.rglob("*.yaml")))
    contents = (yaml.safe_load(file.read_text(encoding="utf-8")) for file in files)
    return frozenset(trust) | {target for content in contents for target in targets_in(content)}


def read_run_config(run_dir: Path) -> dict[str, Any]:
    """Return a run's config as plain data: no interpolation but to the config's own keys is in it.

    Raises:
        ConfigError: where it is no run directory, or its config is no plain yaml, or asks a resolver for something.
    """
    file = run_dir / "config.yaml"
    if not file.is_file():
        raise ConfigError(f"run={run_dir}", "config.yaml is not there", "give the directory that a run left behind")
    if file.stat().st_size > LARGEST:
        raise ConfigError(f"run={run_dir}", "config.yaml is far too large", "give the directory that a run left behind")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = f"config.yaml is no plain yaml: {str(error).splitlines()[0]}"
        raise ConfigError(f"run={run_dir}", reason, "it may be damaged") from None
    if not isinstance(content, dict):
        raise ConfigError(f"run={run_dir}", "config.yaml holds no experiment", "it may be damaged")
    try:
        refuse_resolvers(content, run_dir)
    except RecursionError:
        raise ConfigError(f"run={run_dir}", "config.yaml holds itself", "it may be damaged") from None
    return content


def refuse_resolvers(node: Any, run_dir: Path) -> None:
    """Refuse `${name:…}`: a resolver runs code, or reads the environment."""
    if isinstance(node, str) and "${" in node and ":" in node.split("${", 1)[1]:
        raise ConfigError(f"run={run_dir}", f"config.yaml asks a resolver: {node}", "write the value into config.yaml")
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list | tuple | set) else ()
    for value in inner:
        refuse_resolvers(value, run_dir)
