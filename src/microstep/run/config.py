"""Reads config.yaml of a run directory. Anyone may have written it, so schema, ranges and names are checked."""

from dataclasses import fields
from glob import has_magic
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from microstep.config.allowlist import Allowlist, iter_values
from microstep.config.experiment import LATER, STUDY_KEYS
from microstep.config.overrides import drop_nodes
from microstep.config.schema import TrainConfig
from microstep.config.validation import check_config
from microstep.errors import ConfigError
from microstep.utils.json_files import read_limited

MAX_DEPTH = 50  #: levels of nested collections; building many more would exhaust Python's stack
YAML_SCALARS = (str, int, float, bool, type(None))
GIVE_RUN_REMEDY = "give the directory that a run left behind"
SWEEP_GIVEN_REMEDY = "name one of a sweep's runs, or compare several: 'run=SWEEP/*' 'baseline=SWEEP/…'"
DAMAGED_CONFIG_REMEDY = "it may be damaged, or of another version"


class PlainLoader(yaml.SafeLoader):
    """Safe loader that also refuses tags, anchors (a few lines of them can expand to gigabytes) and deep nesting."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if event.anchor is not None or getattr(event, "tag", None) is not None:
            raise yaml.YAMLError("it has anchors or tags")
        if self.depth > MAX_DEPTH:
            raise yaml.YAMLError("it is nested too deep")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def load_run_config(run_dir: Path, allowlist: Allowlist, key: str = "run") -> DictConfig:
    """Return the typed and checked config of a run: each value is in its range, each reference resolves.

    Its own `trust` list is ignored. Targets are checked when they are built. A ConfigError begins with `key`.
    """
    plain = {name: value for name, value in LATER.items() if "." not in name} | read_run_yaml(run_dir, allowlist, key)
    subject = f"{key}={run_dir}"
    for group in (field.name for field in fields(TrainConfig) if field.default == "???"):
        if not isinstance(plain.get(group), dict):
            raise ConfigError(subject, f"config.yaml has no {group} to build", DAMAGED_CONFIG_REMEDY)
    try:
        config = drop_nodes(DictConfig(OmegaConf.merge(OmegaConf.structured(TrainConfig), plain)), *STUDY_KEYS)
    except Exception as error:  # OmegaConf raises many kinds
        raise run_config_error(subject, "is not an experiment's", error) from None
    try:
        check_config(config)
    except ConfigError as error:
        value, reason, remedy = error.args
        raise ConfigError(subject, f"config.yaml has {value}: {reason}", remedy) from None
    return config


def read_run_yaml(run_dir: Path, allowlist: Allowlist, key: str = "run") -> dict[str, Any]:
    """Return config.yaml of a run as plain data, with its interpolations as written.

    Raise ConfigError if it is missing, too large or not plain yaml, or uses a resolver that the allowlist lacks.
    """
    subject = f"{key}={run_dir}"
    try:
        content = yaml.load(read_limited(run_dir / "config.yaml").decode(), PlainLoader)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        reason = "is not there" if missing else f"can't be read: {error.strerror}"
        remedy = SWEEP_GIVEN_REMEDY if (run_dir / "sweep.json").exists() or has_magic(str(run_dir)) else GIVE_RUN_REMEDY
        raise ConfigError(subject, f"config.yaml {reason}", remedy) from None
    except Exception as error:  # yaml's constructors raise any kind: an OverflowError for `1:1:…:1.5`
        raise run_config_error(subject, "is no plain yaml", error) from None
    if not isinstance(content, dict):
        raise ConfigError(subject, "config.yaml holds no experiment", DAMAGED_CONFIG_REMEDY)
    check_plain_values(content, subject)
    allowlist.check_resolvers(content, subject)
    return content


def check_plain_values(content: dict[str, Any], subject: str) -> None:
    """Refuse dates, which yaml parses from plain text, and integers of more than 64 bits."""
    for value in iter_values(content):
        if not isinstance(value, YAML_SCALARS) or (isinstance(value, int) and not -(2**63) <= value < 2**63):
            error = ValueError(f"a {type(value).__name__} that no experiment has")
            raise run_config_error(subject, "is no plain yaml", error)


def run_config_error(subject: str, problem: str, error: Exception) -> ConfigError:
    first_line = next(iter(str(error).splitlines()), type(error).__name__)
    return ConfigError(subject, f"config.yaml {problem}: {first_line}", DAMAGED_CONFIG_REMEDY)
