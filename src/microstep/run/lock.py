"""Locks run directories: while a process works in one, no other process does."""

import logging
import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, wait
from contextlib import contextmanager, suppress
from errno import ENOLCK, ENOSYS, EOPNOTSUPP
from functools import cache
from pathlib import Path
from weakref import WeakValueDictionary

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from microstep.errors import MicrostepError, RunInUse, StorageError
from microstep.utils.files import write_atomic
from microstep.utils.terminal import install_notice_handler
from microstep.utils.text import display_path

LOCK_FILE = ".lock"  #: the operating system locks it
MARKER_FILE = ".lock.marker"  #: is the lock as long as it exists, on a file system without flock
HOLDER_FILE = ".lock.holder"  #: names the process that has locked the directory last
NO_FLOCK_ERRNOS = {ENOSYS, ENOLCK, EOPNOTSUPP}
UNFINISHED_WRITES = WeakValueDictionary[Path, Future[None]]()  #: by directory; a finished one may be left in it
os.register_at_fork(after_in_child=UNFINISHED_WRITES.clear)  # a child has none of the threads
log = logging.getLogger("microstep.notice")


def lock_directory(directory: Path) -> BaseFileLock:
    """Lock a directory until the lock is released or the process ends. Raise RunInUse if another process holds it.

    The operating system holds the lock, so a crash leaves nothing to clean up, and forked processes do not hold it.
    One process may lock a directory several times; the last release unlocks it. If this process still writes into the
    directory in another thread, as after a trainer that was interrupted, this function waits for that thread.
    """
    if (writing := UNFINISHED_WRITES.get(directory.resolve())) is not None:
        wait([writing])
    lock = acquire_lock(directory)
    try:
        write_atomic(directory / HOLDER_FILE, f"pid {os.getpid()} on {socket.gethostname()}".encode(), durable=False)
    except BaseException:
        lock.release()
        raise
    return lock


def acquire_lock(directory: Path) -> BaseFileLock:
    """Lock a directory like `lock_directory`, without writing the name of this process into it."""
    try:
        return acquire_flock_or_marker(directory.resolve())
    except Timeout as timeout:
        marker = Path(timeout.lock_file)
        stale = f", or remove {display_path(marker)} if it is dead" if marker.name == MARKER_FILE else ""
        reason = f"another process is at work in it ({read_lock_holder(directory)})"
        remedy = f"wait for it, stop it, or choose another directory{stale}"
        raise RunInUse(display_path(directory), reason, remedy) from None
    except OSError as error:
        raise StorageError(str(directory), error.strerror or str(error), "check that it can be written") from None


def acquire_flock_or_marker(directory: Path) -> BaseFileLock:
    """Acquire the flock, or create the marker if the file system has no flock. Raise Timeout if it is held.

    filelock replaces a marker if it can tell that its process is dead: not on another host, and not on NFS.
    """
    lock: BaseFileLock
    try:
        lock = FileLock(directory / LOCK_FILE, is_singleton=True, thread_local=False, fallback_to_soft=False)
        lock.acquire(blocking=False)
    except OSError as error:
        if error.errno not in NO_FLOCK_ERRNOS:
            raise
        warn_of_weak_lock()
        lock = SoftFileLock(directory / MARKER_FILE, is_singleton=True, thread_local=False)
        lock.acquire(blocking=False)
    return lock


@cache
def warn_of_weak_lock() -> None:
    install_notice_handler()
    log.warning("the file system has no flock: %s is the lock, a weaker one that stays after a kill", MARKER_FILE)


def submit_locked(executor: Executor, write: Callable[[], None], directory: Path) -> Future[None]:
    """Call a function in another thread that writes into a directory, and keep the directory locked until it ends."""
    future = executor.submit(call_and_release, write, acquire_lock(directory))
    UNFINISHED_WRITES[directory.resolve()] = future
    return future


def call_and_release(function: Callable[[], None], lock: BaseFileLock) -> None:
    try:
        function()
    finally:
        lock.release()


@contextmanager
def directory_lock(directory: Path) -> Iterator[None]:
    lock = lock_directory(directory)
    try:
        yield
    finally:
        lock.release()


def read_lock_holder(directory: Path) -> str:
    try:
        return (directory / HOLDER_FILE).read_text(encoding="utf-8")[:200] or "it has just begun"
    except (OSError, UnicodeDecodeError):
        return "it doesn't say which"


def is_locked(directory: Path) -> bool:
    """Return whether another process holds the lock of a directory."""
    if not (directory / LOCK_FILE).exists():
        return False
    with suppress(MicrostepError):
        acquire_lock(directory).release()
        return False
    return True
