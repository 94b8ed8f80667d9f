"""Creates run directories: each holds one run, and a run that could not start leaves none behind."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from filelock import FileLock

from microstep.errors import ConfigError, MicrostepError, RunInUse, Stopped, StorageError
from microstep.run.lock import LOCK, owned, owning
from microstep.run.record import RunRecord


def refuse_a_second_run(directory: Path, key: str = "hydra.run.dir") -> None:
    """Refuse a directory with a finished run or a checkpoint; a run that died before that may be started afresh."""
    if has_checkpoint(directory) or RunRecord.read(directory).status == "finished":
        remedy = f"resume={shlex.quote(str(directory))} goes on with it, or choose another name"
        raise ConfigError(f"{key}={directory}", "it holds a run already", remedy)


def has_checkpoint(directory: Path) -> bool:
    """Return whether the run in a directory can be resumed from a checkpoint."""
    return (directory / "checkpoints" / "manifest.json").exists()


@contextmanager
def claimed(directory: Path, exact_name: bool, discard_on_error: bool = False) -> Iterator[Path]:
    """Create a directory for a job, and remove it if the job ends with exit code 2 before its first checkpoint.

    Args:
        directory: path of the directory.
        exact_name: whether to use this path even if it exists; otherwise a path that exists gets a number.
        discard_on_error: whether any error or signal removes the directory, not only exit code 2.
    """
    if exact_name:
        refuse_a_second_run(directory)
    parents = [path for path in directory.absolute().parents if not path.exists()]
    created, fresh = taken(directory) if exact_name else (unused(directory), True)
    try:
        yield created
    except (MicrostepError, Stopped) as error:
        if fresh and (discard_on_error or (error.exit_code == ConfigError.exit_code and not has_checkpoint(created))):
            discard(created, parents)
        raise


def discard(directory: Path, parents: list[Path]) -> None:
    """Remove a directory, and those of the given parents that are empty then."""
    shutil.rmtree(directory)
    for parent in parents:
        if any(parent.iterdir()):
            break
        parent.rmdir()


def taken(directory: Path) -> tuple[Path, bool]:
    """Return the directory, and whether this call created it: only then may it be removed again."""
    with suppress(FileExistsError):
        return made(directory, exist_ok=False), True
    return made(directory), False


def occupied(directory: Path) -> FileLock:
    """Create and lock a directory for a new run.

    Raises:
        RunInUse: if another process has locked it.
        ConfigError: if it holds a run already.
    """
    lock = owned(made(directory))
    try:
        refuse_a_second_run(directory)
    except BaseException:
        lock.release()
        raise
    return lock


def unused(directory: Path) -> Path:
    """Create and return a new directory: `-2`, `-3`, … is added to a name that exists."""
    for n in count(1):
        candidate = directory if n == 1 else directory.with_name(f"{directory.name}-{n}")
        with suppress(FileExistsError):
            return made(candidate, exist_ok=False)
    raise AssertionError("unreachable")


def made(directory: Path, exist_ok: bool = True) -> Path:
    """Create and return a directory.

    Raises:
        StorageError: if it cannot be created.
        FileExistsError: if it exists and `exist_ok` is false.
    """
    try:
        directory.mkdir(parents=True, exist_ok=exist_ok)
    except OSError as error:
        if isinstance(error, FileExistsError) and not exist_ok and os.path.lexists(directory):
            raise
        remedy = "make its parent writable, or choose another directory"
        raise StorageError(str(directory), error.strerror or "can't be made", remedy) from None
    return directory


KEPT = (LOCK, "train.log")  #: files that stay when a run starts afresh


def cleared(directory: Path) -> None:
    """Remove the files of a run, except its log, so that another run may start in its directory."""
    with suppress(RunInUse), owning(directory):  # the run that starts next reports that the directory is in use
        for path in directory.iterdir():
            if path.name not in KEPT:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
