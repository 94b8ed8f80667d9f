"""Names of runs and sweeps: safe to type, stable across reruns."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from hashlib import sha256
from time import strftime

from omegaconf import OmegaConf

from microstep.config.experiment import NEUTRAL_KEYS
from microstep.errors import ConfigError

MAX_NAME_LENGTH = 80
UNSAFE_CHARACTERS = re.compile(r"[^A-Za-z0-9._+-]+")


def register_resolvers() -> None:
    """Make the resolvers known that train.yaml uses; silence what Hydra says of a yaml named like a plugin's."""
    OmegaConf.register_new_resolver("job_name", job_name, replace=True)
    OmegaConf.register_new_resolver("sweep_name", sweep_name, replace=True)
    # conf/hydra/launcher/ray.yaml has the name of its plugin's schema, and is meant to be held against it.
    warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/\w+' is validated against ConfigStore schema")


def job_name(overrides: Sequence[str]) -> str:
    """Return `key-value_key-value` of what was typed, less what can't change a result.

    Where characters had to be replaced, a value reads like a key, or the name was cut at 80 characters, eight of a
    hash keep it unique.
    """
    told = sorted(o for o in overrides if o.lstrip("+").split("=")[0] not in NEUTRAL_KEYS)
    exact = "_".join(o.lstrip("+").replace("=", "-", 1) for o in told) or "defaults"
    safe = UNSAFE_CHARACTERS.sub("-", exact)
    keys = [o.lstrip("+").split("=")[0] for o in told]
    plain = all(f"_{exact}".count(f"_{key}-") == 1 for key in keys)  # no value reads like a key of its own
    if safe == exact and len(safe) <= MAX_NAME_LENGTH and plain:
        return safe
    return safe_name(safe, told)


def safe_name(text: str, identity: object) -> str:
    """Return text as a file's name of at most 80 characters, the last eight of a hash of what it stands for."""
    return (
        f"{UNSAFE_CHARACTERS.sub('-', text)[: MAX_NAME_LENGTH - 9]}-{sha256(repr(identity).encode()).hexdigest()[:8]}"
    )


def sweep_name(name: str | None) -> str:
    """Return a sweep's directory name: its own, or the date and time."""
    if name is None:
        return strftime("%Y-%m-%d_%H-%M-%S")
    if UNSAFE_CHARACTERS.search(name) or set(name) == {"."} or not name or len(name) > MAX_NAME_LENGTH:
        raise ConfigError(f"sweep={name}", "it can't name a directory", "use letters, digits and . _ + - only")
    return name
