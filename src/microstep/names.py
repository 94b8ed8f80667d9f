"""Names of directories: safe to type, stable across reruns, never two runs in one."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from itertools import count
from pathlib import Path
from time import strftime

from omegaconf import OmegaConf

from microstep.config import NEUTRAL_KEYS
from microstep.errors import ConfigError, StorageError

LONGEST = 80
UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")


def register() -> None:
    """Make the resolvers known that train.yaml uses."""
    OmegaConf.register_new_resolver("job_name", job_name, replace=True)
    OmegaConf.register_new_resolver("sweep_name", sweep_name, replace=True)


def job_name(overrides: Sequence[str]) -> str:
    """Return `key-value_key-value` of what was typed, less what can't change a result.

    Where characters had to be replaced, a value reads like a key, or the name was cut at 80 characters, eight of a
    hash keep it unique.
    """
    told = sorted(o for o in overrides if o.lstrip("+").split("=")[0] not in NEUTRAL_KEYS)
    exact = "_".join(o.lstrip("+").replace("=", "-", 1) for o in told) or "defaults"
    safe = UNSAFE.sub("-", exact)
    keys = [o.lstrip("+").split("=")[0] for o in told]
    plain = all(f"_{exact}".count(f"_{key}-") == 1 for key in keys)  # no value reads like a key of its own
    if safe == exact and len(safe) <= LONGEST and plain:
        return safe
    digest = sha256(repr(told).encode()).hexdigest()
    return f"{safe[: LONGEST - 9]}-{digest[:8]}"


def sweep_name(name: str | None) -> str:
    """Return a sweep's directory name: its own, or the date and time."""
    if name is None:
        return strftime("%Y-%m-%d_%H-%M-%S")
    if UNSAFE.search(name) or set(name) == {"."} or not name or len(name) > LONGEST:
        raise ConfigError(f"sweep={name}", "it can't name a directory", "use letters, digits and . _ + - only")
    return name


def unused(directory: Path) -> Path:
    """Make and return a directory that nobody has: `-2`, `-3`, … is added where the name is taken."""
    for n in count(1):
        candidate = directory if n == 1 else directory.with_name(f"{directory.name}-{n}")
        with suppress(FileExistsError):
            return made(candidate, exist_ok=False)
    raise AssertionError("unreachable")


def made(directory: Path, exist_ok: bool = True) -> Path:
    """Make and return a directory.

    Raises:
        StorageError: where it can't be made.
        FileExistsError: where it is there and may not be.
    """
    try:
        directory.mkdir(parents=True, exist_ok=exist_ok)
    except OSError as error:
        if isinstance(error, FileExistsError) and not exist_ok and os.path.lexists(directory):
            raise
        remedy = "make its parent writable, or choose another hydra.run.dir"
        raise StorageError(str(directory), error.strerror or "can't be made", remedy) from None
    return directory
