"""Files that are either whole or not there."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from microstep.errors import StorageError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def storing(file: Path) -> Iterator[None]:
    """Turn a failure to write into an error that names the file.

    Raises:
        StorageError: exit code 4.
    """
    try:
        yield
    except OSError as error:
        remedy = "free some space" if error.errno in FULL else "check that the directory can be written"
        raise StorageError(str(file), error.strerror or str(error), remedy) from error


def write_whole(file: Path, content: bytes, durable: bool = True) -> None:
    """Write a file so that a reader sees the old content or the new, never a part.

    Args:
        durable: also survive a power cut: flush file and directory to the disk.

    Raises:
        StorageError: nothing has changed then, and no temporary file is left.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    with storing(file):
        try:
            with temporary.open("wb") as stream:
                stream.write(content)
                stream.flush()
                if durable:
                    os.fsync(stream.fileno())
            temporary.replace(file)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if durable:
            flush_directory(file.parent)


def flush_directory(directory: Path) -> None:
    """Make a rename survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def shown(path: Path) -> str:
    """Return a path as a person would type it: relative below the working directory, else absolute."""
    absolute, here = path.resolve(), Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(absolute)


def legible(name: str) -> str:
    """Return a name fit for a terminal and a picture: on one line, and nothing in it that means something to them."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def shortened(name: str, letters: int) -> str:
    """Return a name that fits, its middle left out: a file's end tells most."""
    name = legible(name)
    half = (letters - 1) // 2
    return name if len(name) <= letters else f"{name[:half]}…{name[len(name) - half :]}"


def write_json(file: Path, content: Mapping[str, Any], durable: bool = False) -> None:
    """Write a JSON object, readable; a number that JSON doesn't have becomes null."""
    text = json.dumps(finite(content), indent=2, ensure_ascii=False, allow_nan=False)
    write_whole(file, f"{text}\n".encode(), durable)


def finite(value: Any) -> Any:
    """Return a value with NaN and infinities replaced by None."""
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
