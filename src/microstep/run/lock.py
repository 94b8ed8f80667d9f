"""Locks run directories: while a process works in one, no other process does."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from microstep.errors import MicrostepError, RunInUse, StorageError
from microstep.utils.files import storage_errors
from microstep.utils.text import display_path

LOCK_FILE = ".lock"


def lock_directory(directory: Path) -> FileLock:
    """Lock a directory until the lock is released or the process ends. Raise RunInUse if another process holds it.

    The operating system holds the lock, so a crash leaves nothing to clean up, and forked processes do not hold it.
    One process may lock a directory several times; the last release unlocks it.
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
    lock = lock_directory(directory)
    try:
        yield
    finally:
        lock.release()


def read_lock_holder(directory: Path) -> str:
    try:
        return (directory / LOCK_FILE).read_text(encoding="utf-8")[:200] or "it has just begun"
    except (OSError, UnicodeDecodeError):
        return "it doesn't say which"


def is_locked(directory: Path) -> bool:
    """Return whether another process holds the lock of a directory."""
    if not (directory / LOCK_FILE).exists():
        return False
    with suppress(MicrostepError), directory_lock(directory):
        return False
    return True
