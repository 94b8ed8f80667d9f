"""What files hold, in a few bytes each: read once, then remembered by size and time of change."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from microstep.errors import DataError
from microstep.utils.json_files import recalled, remember

PART = 4096  #: files that are queued at once


def digests(root: Path, files: Sequence[str]) -> list[str]:
    """Return each file's SHA-256.

    A file whose size and times (of its content, of its inode) are those of the last time is not read again.

    Raises:
        DataError: naming a file that can't be read at all.
    """
    name = f"files/{sha256(str(root.resolve()).encode()).hexdigest()}.json"
    known = recalled(name)
    found = {file: stamped(root / file) for file in files}
    changed = [file for file in files if not holds(known.get(file), found[file])]
    with ThreadPoolExecutor() as threads:  # reading and hashing both let other threads run
        for part in (changed[start : start + PART] for start in range(0, len(changed), PART)):
            for file, digest in zip(part, threads.map(lambda file: digest_of(root / file), part), strict=True):
                known[file] = [*found[file], digest]
    if changed:
        remember(name, known)
    return [known[file][-1] for file in files]


def holds(entry: Any, stamp: list[int]) -> bool:
    """Whether an entry of the cache is whole, and of the file as it is now."""
    return isinstance(entry, list) and entry[:-1] == stamp and isinstance(entry[-1], str)


def stamped(file: Path) -> list[int]:
    """Return size and times of change: a copy that keeps the one time, as cp -p makes, has another of the other."""
    try:
        insist_on_file(file)
        status = file.stat()
    except OSError as error:
        raise DataError(str(file), error.strerror or "it can't be read", "mend it or take it away") from None
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def insist_on_file(file: Path) -> None:
    """Refuse what could be waited for or read from for ever: a pipe, a device.

    Raises:
        OSError: where there is nothing.
        DataError: for something else than a file.
    """
    if not stat.S_ISREG(file.stat().st_mode):
        raise DataError(str(file), "it is no regular file", "take it away")


def digest_of(file: Path) -> str:
    """Return a file's SHA-256."""
    try:
        with file.open("rb") as stream:
            return file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(str(file), error.strerror or "it can't be read", "mend it or take it away") from None
