"""The config of a run directory, which anybody may have made: plain data, held against schema, ranges and a gate."""

from __future__ import annotations

from dataclasses import fields
from glob import has_magic
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from microstep.config import LATER, Experiment, check
from microstep.errors import ConfigError
from microstep.files import read_small
from microstep.gate import Gate, values_in

DEEPEST = 50  #: collections within each other; what is built from more would exhaust Python's stack
PLAIN = (str, int, float, bool, type(None))
GIVE = "give the directory that a run left behind"
SEVERAL = "name one of a sweep's runs, or compare several: 'run=SWEEP/*' 'baseline=SWEEP/…'"
DAMAGED = "it may be damaged, or of another version"


class PlainLoader(yaml.SafeLoader):
    """Refuses what a run never writes: tags, anchors (a page of them can stand for gigabytes), and a deep nesting."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Make one node and those in it."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if event.anchor is not None or getattr(event, "tag", None) is not None:
            raise yaml.YAMLError("it has anchors or tags")
        if self.depth > DEEPEST:
            raise yaml.YAMLError("it is nested too deep")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def run_config(run_dir: Path, gate: Gate) -> DictConfig:
    """Return a run's config, typed again and checked: every value in its range, every reference resolvable.

    What it says of `trust` opens no gate. Targets are the gate's to judge where they are built.

    Raises:
        ConfigError: see `read_run_config`; also where it is not an experiment's, or a value is out of range.
    """
    plain = {key: value for key, value in LATER.items() if "." not in key} | read_run_config(run_dir, gate)
    insist_on_parts(plain, run_dir)
    try:
        config = OmegaConf.merge(OmegaConf.structured(Experiment), plain)
    except Exception as error:  # OmegaConf raises many kinds
        raise broken(run_dir, "is not an experiment's", error) from None
    assert isinstance(config, DictConfig)
    try:
        check(config)
    except ConfigError as error:
        subject, reason, remedy = error.args
        raise ConfigError(f"run={run_dir}", f"config.yaml has {subject}: {reason}", remedy) from None
    return config


def insist_on_parts(content: dict[str, Any], run_dir: Path) -> None:
    """Refuse a config one of whose parts is no group of keys."""
    for part in (field.name for field in fields(Experiment) if field.type == "Any"):
        if not isinstance(content.get(part), dict):
            raise ConfigError(f"run={run_dir}", f"config.yaml has no {part} to build", DAMAGED)


def read_run_config(run_dir: Path, gate: Gate) -> dict[str, Any]:
    """Return a run's config as plain data, interpolations kept.

    Raises:
        ConfigError: where it is no run directory, its config is no plain yaml of a sensible size, or asks a resolver
            for something that the gate doesn't let pass.
    """
    try:
        content = yaml.load(read_small(run_dir / "config.yaml").decode(), PlainLoader)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        reason = "is not there" if missing else f"can't be read: {error.strerror}"
        remedy = SEVERAL if (run_dir / "sweep.json").exists() or has_magic(str(run_dir)) else GIVE
        raise ConfigError(f"run={run_dir}", f"config.yaml {reason}", remedy) from None
    except Exception as error:  # yaml's constructors raise any kind: an OverflowError for `1:1:…:1.5`
        raise broken(run_dir, "is no plain yaml", error) from None
    if not isinstance(content, dict):
        raise ConfigError(f"run={run_dir}", "config.yaml holds no experiment", DAMAGED)
    insist_on_plain_values(content, run_dir)
    gate.insist(content, f"run={run_dir}")
    return content


def insist_on_plain_values(content: dict[str, Any], run_dir: Path) -> None:
    """Refuse dates, which yaml makes of text unasked, and numbers that nothing here can count to."""
    for value in values_in(content):
        if not isinstance(value, PLAIN) or (isinstance(value, int) and not -(2**63) <= value < 2**63):
            error = ValueError(f"a {type(value).__name__} that no experiment has")
            raise broken(run_dir, "is no plain yaml", error)


def broken(run_dir: Path, what: str, error: Exception) -> ConfigError:
    """Return what is wrong with a config, in one line."""
    said = next(iter(str(error).splitlines()), type(error).__name__)
    return ConfigError(f"run={run_dir}", f"config.yaml {what}: {said}", DAMAGED)
