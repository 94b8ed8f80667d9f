"""Run directories: never two runs in one, and none left behind by a run that could not start."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from microstep.errors import ConfigError, MicrostepError, RunInUse, StorageError


def refuse_a_second_run(directory: Path, key: str = "hydra.run.dir") -> None:
    """Refuse a directory that holds a run, before Hydra writes anything into it."""
    if (directory / "run.json").exists():
        raise ConfigError(f"{key}={directory}", "it holds a run already", "choose another name, or move the run away")


@contextmanager
def claimed(directory: Path, exact: bool) -> Iterator[Path]:
    """Make a directory of one's own, and take it away again where the job ends with exit code 2.

    Args:
        exact: take this one or none; otherwise a name that is taken gets a number.
    """
    if exact:
        refuse_a_second_run(directory)
    parents = [path for path in directory.absolute().parents if not path.exists()]
    own, fresh = taken(directory) if exact else (unused(directory), True)
    try:
        yield own
    except MicrostepError as error:
        if fresh and error.exit_code == ConfigError.exit_code:
            discard(own, parents)
        raise


def discard(directory: Path, parents: list[Path]) -> None:
    """Remove a directory, and those of its parents that were made for it and hold nothing else."""
    shutil.rmtree(directory)
    for parent in parents:
        if any(parent.iterdir()):
            break
        parent.rmdir()


def taken(directory: Path) -> tuple[Path, bool]:
    """Return the directory, and whether it was this call that made it: only then may it be taken away again."""
    with suppress(FileExistsError):
        return made(directory, exist_ok=False), True
    return made(directory), False


def occupied(directory: Path) -> Path:
    """Make the directory this run's by its run.json, which only one process can create.

    Raises:
        RunInUse: where another has, if only just now.
    """
    made(directory)
    try:
        (directory / "run.json").open("x").close()
    except FileExistsError:
        raise RunInUse(f"hydra.run.dir={directory}", "it holds a run already", "choose another directory") from None
    return directory.resolve()


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
        remedy = "make its parent writable, or choose another directory"
        raise StorageError(str(directory), error.strerror or "can't be made", remedy) from None
    return directory
