"""Files that are either whole or not there."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from microstep.errors import StorageError

DISK_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
TEMPORARY_PATTERN = ".*.tmp"  #: what files are called until they are whole


@contextmanager
def storage_errors(file: Path, needed: int | None = None) -> Iterator[None]:
    """Turn a failure to write into an error that names the file, and on a full disk the bytes needed and free.

    Raises:
        StorageError: exit code 4.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno not in DISK_FULL_ERRNOS:
            raise StorageError(str(file), reason, "check that the directory can be written") from error
        needed_text = "" if needed is None else f"{needed:,} bytes are needed, "
        raise StorageError(
            str(file), f"{reason}: {needed_text}{free_bytes(file):,} are free", "free some space"
        ) from error


def free_bytes(file: Path) -> int:
    """Return the bytes that are free where a file is to be."""
    directory = next(path for path in file.absolute().parents if path.exists())
    return shutil.disk_usage(directory).free


def write_atomic(file: Path, content: bytes, durable: bool = True) -> None:
    """Write a file so that a reader sees the old content or the new, never a part.

    Args:
        durable: also survive a power cut: content to the disk first, then the name, then the directory.

    Raises:
        StorageError: nothing has changed then, and no temporary file is left.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    with storage_errors(file, len(content)):
        try:
            write_new_file(temporary, content, durable)
            os.replace(temporary, file)  # noqa: PTH105  # each of the four calls is spelt out: their order is the point
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if durable:
            sync_to_disk(file.parent)


def write_new_file(file: Path, content: bytes, durable: bool) -> None:
    """Write a new file."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        write_fully(descriptor, content)
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_fully(descriptor: int, content: bytes) -> None:
    """Write all of it: one call may take less than it is given."""
    remaining = memoryview(content)
    while remaining:
        remaining = remaining[os.write(descriptor, remaining) :]


def append_bytes(file: Path, content: bytes) -> None:
    """Append to a file; where that fails, it is as it was.

    Raises:
        StorageError: where there is no room.
    """
    with storage_errors(file, len(content)), file.open("ab") as stream:
        before = stream.tell()
        try:
            write_fully(stream.fileno(), content)
        except OSError:
            stream.truncate(before)
            raise


def sync_to_disk(path: Path) -> None:
    """Make a file's content, or the names in a directory, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def write_directory(directory: Path) -> Iterator[Path]:
    """Yield a draft of a directory, of the same name; its files take their places once all of them are written.

    Raises:
        StorageError: none of them is there then, and those of before still are.
    """
    temporary = directory.with_name(f".{directory.name}.{os.getpid()}.tmp")
    draft = temporary / directory.name  # a report's titles and warnings call the split by it
    with storage_errors(directory):
        try:
            draft.mkdir(parents=True)
            yield draft
            directory.mkdir(exist_ok=True)
            for file in draft.iterdir():
                file.replace(directory / file.name)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def remove_temporaries(directory: Path) -> None:
    """Remove what writers that died have left below a directory that is this process's own."""
    for leftover in list(directory.rglob(TEMPORARY_PATTERN)):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink(missing_ok=True)
