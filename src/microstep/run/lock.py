"""One owner: while a process works in a run directory, no other does."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from microstep.errors import MicrostepError, RunInUse, StorageError
from microstep.utils.files import storage_errors
from microstep.utils.text import display_path

LOCK_FILE = ".lock"


def lock_directory(directory: Path) -> FileLock:
    """Make a directory this process's own until the lock is released, or the process is gone, however it went.

    The system keeps the lock, not the file: nothing has to be cleaned up after a crash, and processes that this one
    forks don't hold it. In one process a directory may be owned several times over; the last release counts.

    Raises:
        RunInUse: where another process has it, with its pid and host.
        StorageError: where the directory can't be written.
    """
    lock = FileLock(directory.resolve() / LOCK_FILE, is_singleton=True, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        reason = f"another process is at work in it ({read_lock_holder(directory)})"
        raise RunInUse(display_path(directory), reason, "wait for it, stop it, or choose another directory") from None
    except OSError as error:
        raise StorageError(str(directory), error.strerror or str(error), "check that it can be written") from None
    with storage_errors(directory / LOCK_FILE):
        (directory / LOCK_FILE).write_text(f"pid {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
    return lock


@contextmanager
def directory_lock(directory: Path) -> Iterator[None]:
    """Own a directory for a while."""
    lock = lock_directory(directory)
    try:
        yield
    finally:
        lock.release()


def read_lock_holder(directory: Path) -> str:
    """Return who has a directory, as far as it has said so."""
    try:
        return (directory / LOCK_FILE).read_text(encoding="utf-8")[:200] or "it has just begun"
    except (OSError, UnicodeDecodeError):
        return "it doesn't say which"


def is_locked(directory: Path) -> bool:
    """Return whether a process has locked a run directory."""
    if not (directory / LOCK_FILE).exists():
        return False
    try:
        with directory_lock(directory):
            return False
    except MicrostepError:
        return True
