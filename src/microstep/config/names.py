"""Names of runs and sweeps: safe to type, stable across reruns."""

import re
import warnings
from collections.abc import Collection, Iterable, Sequence
from hashlib import sha256
from time import strftime

from omegaconf import OmegaConf

from microstep.config.experiment import is_neutral
from microstep.errors import ConfigError

MAX_NAME_LENGTH = 80
UNSAFE_CHARACTERS = re.compile(r"[^A-Za-z0-9._+-]+")


def register_resolvers() -> None:
    OmegaConf.register_new_resolver("job_name", job_name, replace=True)
    OmegaConf.register_new_resolver("sweep_name", sweep_name, replace=True)
    # conf/hydra/launcher/ray.yaml has the name of its plugin's schema on purpose: Hydra validates it against that.
    warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/\w+' is validated against ConfigStore schema")


def list_settings(overrides: Iterable[str], exclude: Collection[str] = ()) -> list[str]:
    """Return the sorted overrides that can change a result, without those of some keys."""
    return sorted(o for o in overrides if not is_neutral(key := o.lstrip("+").split("=")[0]) and key not in exclude)


def job_name(overrides: Sequence[str], fixed_keys: Collection[str] = ()) -> str:
    """Return `key-value_key-value` for the overrides that can change a result, without `fixed_keys` if others are left.

    Eight digits of a hash keep the name unique if characters had to be replaced, if a value reads like a key, or if
    the name was cut at 80 characters.
    """
    settings = list_settings(overrides, fixed_keys) or list_settings(overrides)
    exact = "_".join(o.lstrip("+").replace("=", "-", 1) for o in settings) or "defaults"
    keys = [o.lstrip("+").split("=")[0] for o in settings]
    unambiguous = all(f"_{exact}".count(f"_{key}-") == 1 for key in keys)
    if unambiguous and len(exact) <= MAX_NAME_LENGTH and not UNSAFE_CHARACTERS.search(exact):
        return exact
    return safe_name(exact, settings)


def safe_name(text: str, identity: object) -> str:
    """Return text as a file name of at most 80 characters, which ends with eight digits of the hash of `identity`."""
    digits = sha256(repr(identity).encode()).hexdigest()[:8]
    return f"{UNSAFE_CHARACTERS.sub('-', text)[: MAX_NAME_LENGTH - 9]}-{digits}"


def sweep_name(name: str | None) -> str:
    if name is None:
        return strftime("%Y-%m-%d_%H-%M-%S")
    if UNSAFE_CHARACTERS.search(name) or set(name) == {"."} or not name or len(name) > MAX_NAME_LENGTH:
        raise ConfigError(f"sweep={name}", "it can't name a directory", "use letters, digits and . _ + - only")
    return name
