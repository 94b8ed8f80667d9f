"""Creates run directories. Each holds one run, and a run that could not start leaves none behind."""

import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from filelock import BaseFileLock

from microstep.errors import ConfigError, MicrostepError, RunInUse, Stopped, StorageError
from microstep.run.lock import LOCK_FILES, directory_lock, lock_directory
from microstep.run.record import RunRecord
from microstep.utils.files import make_durable_directory

KEPT_FILES = (*LOCK_FILES, "train.log")  #: files that stay when a run starts from the beginning


def check_no_run(directory: Path) -> None:
    """Refuse a directory with a finished run or a checkpoint. A run that died before that may be started again."""
    if has_checkpoint(directory) or RunRecord.read(directory).status == "finished":
        remedy = f"resume={shlex.quote(str(directory))} resumes it, or choose another name"
        raise ConfigError(f"hydra.run.dir={directory}", "it holds a run already", remedy)


def has_checkpoint(directory: Path) -> bool:
    return (directory / "checkpoints" / "manifest.json").exists()


@contextmanager
def new_directory(directory: Path, exact_name: bool, discard_on_error: bool = False) -> Iterator[Path]:
    """Create a directory for a job, and remove it if the job ends with exit code 2 before its first checkpoint.

    Args:
        exact_name: whether to use this path even if it exists; otherwise a path that exists gets a number.
        discard_on_error: whether any error or signal removes the directory, not only exit code 2.
    """
    if exact_name:
        check_no_run(directory)
    parents = [path for path in directory.absolute().parents if not path.exists()]
    created, is_new = ensure_directory(directory) if exact_name else (unique_directory(directory), True)
    try:
        yield created
    except (MicrostepError, Stopped) as error:
        if is_new and (discard_on_error or (error.exit_code == ConfigError.exit_code and not has_checkpoint(created))):
            remove_directory(created, parents)
        raise


def remove_directory(directory: Path, empty_parents: list[Path]) -> None:
    shutil.rmtree(directory)
    with suppress(OSError):  # a parent that is not empty
        for parent in empty_parents:
            parent.rmdir()


def ensure_directory(directory: Path) -> tuple[Path, bool]:
    with suppress(FileExistsError):
        return make_directory(directory, exist_ok=False), True
    return make_directory(directory), False


def lock_new_run(directory: Path) -> BaseFileLock:
    """Create and lock a directory for a new run. Raise RunInUse if it is locked, ConfigError if it holds a run."""
    lock = lock_directory(make_directory(directory))
    try:
        check_no_run(directory)
    except BaseException:
        lock.release()
        raise
    return lock


def unique_directory(directory: Path) -> Path:
    """Create and return a new directory. `-2`, `-3`, … is added to a name that exists."""
    for n in count(1):
        candidate = directory if n == 1 else directory.with_name(f"{directory.name}-{n}")
        with suppress(FileExistsError):
            return make_directory(candidate, exist_ok=False)
    raise AssertionError("unreachable")


def make_directory(directory: Path, exist_ok: bool = True) -> Path:
    """Create and return a directory. Raise FileExistsError only if it exists and `exist_ok` is false."""
    try:
        make_durable_directory(directory, exist_ok)
    except OSError as error:
        if isinstance(error, FileExistsError) and not exist_ok and os.path.lexists(directory):
            raise
        remedy = "make its parent writable, or choose another directory"
        raise StorageError(str(directory), error.strerror or "can't be made", remedy) from None
    return directory


def clear_run_directory(directory: Path) -> None:
    """Remove the files of a run, except its log, so that another run may start in its directory."""
    with suppress(RunInUse), directory_lock(directory):  # the run that starts next reports that the directory is in use
        for path in directory.iterdir():
            if path.name not in KEPT_FILES:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
