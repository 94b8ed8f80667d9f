"""Creates and locks run directories. Each holds one run, and a run that could not start leaves none behind."""

import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain, count
from pathlib import Path

from filelock import BaseFileLock

from microstep.errors import ConfigError, MicrostepError, RunInUse, Stopped, StorageError
from microstep.run import layout
from microstep.run.lock import LOCK_FILE, MARKER_FILE, directory_lock, lock_directory
from microstep.run.record import RunRecord
from microstep.utils.files import make_durable_directory

Recognizer = Callable[[Path], bool]  #: returns whether an earlier start has left a directory
STATUSES = {"running", "finished", "interrupted", "pruned", "failed"}


def check_no_run(directory: Path) -> None:
    """Refuse a directory with a finished run or a checkpoint. A run that died before that may be started again."""
    several = len(layout.find_checkpoint_files(directory / "checkpoints")) > 1  # one: it died in its first save
    if has_checkpoint(directory) or several or RunRecord.read(directory).status == "finished":
        remedy = f"resume={shlex.quote(str(directory))} resumes it, or choose another name"
        raise ConfigError(f"hydra.run.dir={directory}", "it holds a run already", remedy)


def has_checkpoint(directory: Path) -> bool:
    return (directory / "checkpoints" / "manifest.json").exists()


def check_left_by_start(directory: Path, recognizes: Recognizer) -> None:
    """Refuse a directory with files that no earlier start has left, or with links among those of a run."""
    layout.refuse_links(directory)
    if not recognizes(directory) and (names := layout.list_names(directory)):  # in this order: it may be discarded now
        reason = f"it is not empty ({min(names, key=layout.matches)}) and was not left by an earlier start"
        raise ConfigError(str(directory), reason, "name a new or an empty directory")


def was_started_in(directory: Path) -> bool:
    """Return whether a start has left a directory, or it is empty."""
    names = layout.list_names(directory)
    locked = LOCK_FILE in names or all(layout.matches(name, layout.FIRST_FILES) for name in names)
    return locked or has_checkpoint(directory) or RunRecord.read(directory).status in STATUSES


def is_left_by_run(directory: Path) -> bool:
    """Return whether a start may replace what is in a directory. Files of others in it are kept."""
    names, recorded = layout.list_names(directory), RunRecord.read(directory).status in STATUSES
    is_certain = recorded or not any(layout.matches(name, layout.RESULT_FILES) for name in names)
    return was_started_in(directory) and (all(map(layout.matches, names)) or (LOCK_FILE in names and is_certain))


@contextmanager
def new_directory(
    directory: Path, exact_name: bool, discard_on_error: bool = False, recognizes: Recognizer = is_left_by_run
) -> Iterator[Path]:
    """Create and lock a directory for a job. Remove it if the job ends with exit code 2 before its first checkpoint.

    Whatever ends the job, a new directory that holds nothing is removed.

    Args:
        exact_name: whether to use this path even if it exists; otherwise a path that exists gets a number.
        discard_on_error: whether any error or signal removes the directory, not only exit code 2.
        recognizes: returns whether the job may start in a directory that is not empty.
    """
    parents = [path for path in directory.absolute().parents if not path.exists()]
    created = directory if exact_name else unique_directory(directory)
    lock, is_made = lock_startable(created, recognizes)
    is_new = (is_made or not exact_name) and holds_only_lock(created)
    try:
        yield created
    except BaseException as error:
        is_unsuitable = getattr(error, "exit_code", None) == ConfigError.exit_code and not has_checkpoint(created)
        is_discarded = discard_on_error and isinstance(error, MicrostepError | Stopped)
        if is_new and (is_discarded or is_unsuitable or holds_only_lock(created)):
            remove_directory(created, parents)
        raise
    finally:
        lock.release()


def lock_startable(directory: Path, recognizes: Recognizer = is_left_by_run) -> tuple[BaseFileLock, bool]:
    """Create and lock a directory, or leave it as it is if it is refused. Return the lock and whether it is new."""
    check_no_run(directory)
    check_left_by_start(directory, recognizes)
    is_made = make_if_missing(directory)
    if directory.is_file() or (directory.is_symlink() and not directory.is_dir()):
        raise StorageError(str(directory), "it is a file or a broken link", "choose another directory")
    try:
        with directory_lock(directory):
            check_no_run(directory)  # again: another process may have been at work in it
            check_left_by_start(directory, recognizes)
            return lock_directory(directory), is_made
    except (RunInUse, StorageError) as error:
        is_raced = isinstance(error.__context__, FileExistsError | FileNotFoundError) and directory.is_dir()
        if os.path.lexists(directory) and not is_raced:
            raise
        return lock_startable(directory, recognizes)  # its owner has discarded it meanwhile


def lock_new_run(directory: Path, in_job: bool = False) -> BaseFileLock:
    """Create and lock a directory for a new run. That of a Hydra job was checked before Hydra wrote into it."""
    return lock_startable(directory, (lambda _: True) if in_job else is_left_by_run)[0]


def holds_only_lock(directory: Path) -> bool:
    names = layout.list_names(directory)
    return bool(names) and all(name.startswith(LOCK_FILE) for name in names)


def remove_directory(directory: Path, empty_parents: list[Path]) -> None:
    """Remove a directory that this process has locked. The lock goes last: no other process locks half of it."""
    for path in sorted(directory.iterdir(), key=lambda path: path.name in (LOCK_FILE, MARKER_FILE)):
        layout.remove_path(path)
    with suppress(OSError):  # another process has begun in it, or a parent is not empty
        for path in (directory, *empty_parents):
            path.rmdir()


def unique_directory(directory: Path) -> Path:
    """Create and return a new directory. `-2`, `-3`, … is added to a name that exists."""
    numbered = (directory.with_name(f"{directory.name}-{n}") for n in count(2))
    return next(filter(make_if_missing, chain([directory], numbered)))


def make_if_missing(directory: Path, tries: int = 10) -> bool:
    """Create a directory and its parents, and return whether it is new."""
    try:
        make_durable_directory(directory)
    except OSError as error:
        if os.path.lexists(directory):
            return False
        if tries and isinstance(error, FileExistsError | FileNotFoundError):  # another process discards a parent
            return make_if_missing(directory, tries - 1)
        remedy = "make its parent writable, or choose another directory"
        raise StorageError(str(directory), error.strerror or "can't be made", remedy) from None
    return True


def clear_run_directory(directory: Path) -> None:
    """Remove the files of a run, except its log, so that another run may start. Refuse a directory of others."""
    check_left_by_start(directory, is_left_by_run)
    with suppress(RunInUse), directory_lock(directory):  # the run that starts next reports that the directory is in use
        layout.remove_run_files(directory)
