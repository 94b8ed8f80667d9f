"""Atomic writes: a file is either complete or not there."""

import errno
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from microstep.errors import StorageError

FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def storage_errors(file: Path, needed: int | None = None) -> Iterator[None]:
    """Convert an OSError to a StorageError, which names the file and, on a full disk, the bytes needed and free."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno not in FULL_ERRNOS:
            raise StorageError(str(file), reason, "check that the directory can be written") from error
        sizes = [] if needed is None else [f"{needed:,} bytes are needed"]
        if error.errno == errno.EFBIG:
            remedy = "raise the limit of file sizes (ulimit -f)"
        else:
            directory = next(path for path in file.absolute().parents if path.exists())
            sizes, remedy = [*sizes, f"{shutil.disk_usage(directory).free:,} are free"], "free some space"
        raise StorageError(str(file), f"{reason}: {', '.join(sizes)}".rstrip(": "), remedy) from error


def expand_home(path: str) -> str:
    """Return a path with the home directory for `~` or `~user`. As in a shell, that of an unknown user is kept."""
    return os.path.expanduser(path)  # noqa: PTH111  # Path.expanduser raises an error for an unknown user


def write_atomic(file: Path, content: bytes, durable: bool = True) -> None:
    """Write a file so that readers see either the old content or the new one; after a StorageError, the old one.

    `durable` survives a power cut, too: the content is flushed to disk before the name, and then the directory.
    """
    temporary = temporary_path(file)
    with storage_errors(file, len(content)):
        try:
            write_new_file(temporary, content, durable)
            os.replace(temporary, file)  # noqa: PTH105  # the four calls are spelled out, because their order matters
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if durable:
            sync_to_disk(file.parent)


def write_new_file(file: Path, content: bytes, durable: bool) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        write_fully(descriptor, content)
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_fully(descriptor: int, content: bytes) -> None:
    """Write all of the content: a single call of os.write may write only a part."""
    remaining = memoryview(content)
    while remaining:
        remaining = remaining[os.write(descriptor, remaining) :]


def append_bytes(file: Path, content: bytes) -> None:
    """Append to a file. If there is no room, raise StorageError and leave it unchanged."""
    with storage_errors(file, len(content)), file.open("ab") as stream:
        before = stream.tell()
        try:
            write_fully(stream.fileno(), content)
        except OSError:
            stream.truncate(before)
            raise


def read_stamp(file: Path) -> list[int]:
    """Return size, mtime and ctime of a file. A copy that keeps the mtime (`cp -p`) has another ctime."""
    status = file.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def sync_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_durable_directory(directory: Path) -> None:
    """Create a directory and its missing parents. A power cut does not lose their names, nor that of one that exists.

    Raise FileExistsError if it exists.
    """
    missing = [path for path in directory.parents if not path.exists()]
    try:
        directory.mkdir(parents=True)
    finally:
        for path in (directory, *missing):
            with suppress(OSError):  # a parent that can be written, but not read, or that another process removes
                sync_to_disk(path.parent)


@contextmanager
def write_directory(directory: Path) -> Iterator[Path]:
    """Yield a directory of the same name, whose files are moved to `directory` at the end if no error is raised."""
    temporary = temporary_path(directory)
    draft = temporary / directory.name  # reports use the directory's name in titles and warnings
    with storage_errors(directory):
        try:
            draft.mkdir(parents=True)
            yield draft
            directory.mkdir(exist_ok=True)
            for file in draft.iterdir():
                file.replace(directory / file.name)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def temporary_path(path: Path) -> Path:
    """Return a hidden path beside a path. Its name ends with the host and the process that writes it."""
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")


def is_abandoned(temporary: Path) -> bool:
    """Return whether a temporary path is of this process, or of a dead one of this host."""
    _, of_this_host, pid = temporary.stem.rpartition(f".{socket.gethostname()}.")
    if not (temporary.match(".*.tmp") and of_this_host and pid.isdecimal() and len(pid) < 10):
        return False
    try:
        os.kill(int(pid), 0)
    except OSError as error:
        return error.errno == errno.ESRCH  # EPERM: it is alive, and another user's
    return int(pid) == os.getpid() or is_zombie(pid)


def is_zombie(pid: str) -> bool:
    """Return whether a process has ended, but its parent has not asked for its exit status. Known on Linux only."""
    with suppress(OSError):
        return Path("/proc", pid, "stat").read_text(errors="replace").rpartition(")")[2].split()[0] == "Z"
    return False
