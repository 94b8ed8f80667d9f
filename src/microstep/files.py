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

from microstep.errors import StorageError, legible

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


def read_small(file: Path, largest: int = 2**20) -> bytes:
    """Return the content of a file that anybody may have made.

    Raises:
        OSError: where it can't be read, or is no regular file: a pipe would be waited for, a device has no end.
        ValueError: where it is larger; no more than that is read of it.
    """
    if file.exists() and not file.is_file():
        raise OSError(errno.EINVAL, "it is no regular file", str(file))
    with file.open("rb") as stream:
        content = stream.read(largest + 1)
    if len(content) > largest:
        raise ValueError(f"it is far too large: over {largest:,} bytes")
    return content


def read_json(file: Path, largest: int = 2**20) -> dict[str, Any]:
    """Return the JSON object in a file that anybody may have made.

    Raises:
        OSError: where it can't be read, or is no regular file.
        ValueError: where it is larger, damaged, or holds something else than an object.
    """
    try:
        content = json.loads(read_small(file, largest).decode())
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__}, no object")
    return content


def shown(path: Path) -> str:
    """Return a path as a person would type it: relative below the working directory, else absolute."""
    absolute, here = path.resolve(), Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(absolute)


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
