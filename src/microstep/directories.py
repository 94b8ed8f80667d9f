"""Run directories: never two runs in one, and none left behind by a run that could not start."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from filelock import FileLock

from microstep.errors import ConfigError, MicrostepError, Stopped, StorageError
from microstep.files import read_json
from microstep.owner import owned


def refuse_a_second_run(directory: Path, key: str = "hydra.run.dir") -> None:
    """Refuse a directory whose run has got somewhere; what died before its first checkpoint may be started afresh."""
    if has_checkpoint(directory) or status_of(directory) == "finished":
        remedy = f"resume={shlex.quote(str(directory))} goes on with it, or choose another name"
        raise ConfigError(f"{key}={directory}", "it holds a run already", remedy)


def has_checkpoint(directory: Path) -> bool:
    """Say whether a run in a directory has anything to go on from."""
    return (directory / "checkpoints" / "manifest.json").exists()


def status_of(directory: Path) -> str | None:
    """Return what run.json says of a run; None where there is none."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        return str(read_json(directory / "run.json")["status"])
    return None


@contextmanager
def claimed(directory: Path, exact: bool, whole: bool = False) -> Iterator[Path]:
    """Make a directory of one's own, and remove it if the job ends with exit code 2 before its first checkpoint.

    Args:
        exact: take this one or none; otherwise a name that is taken gets a number.
        whole: whether it is worth nothing until the job has ended well: any error or signal takes it away then.
    """
    if exact:
        refuse_a_second_run(directory)
    parents = [path for path in directory.absolute().parents if not path.exists()]
    own, fresh = taken(directory) if exact else (unused(directory), True)
    try:
        yield own
    except (MicrostepError, Stopped) as error:
        if fresh and (whole or (error.exit_code == ConfigError.exit_code and not has_checkpoint(own))):
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


def occupied(directory: Path) -> FileLock:
    """Make a directory this process's own, for a new run.

    Raises:
        RunInUse: where another process has it.
        ConfigError: where it holds a run already.
    """
    lock = owned(made(directory))
    try:
        refuse_a_second_run(directory)
    except BaseException:
        lock.release()
        raise
    return lock


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
