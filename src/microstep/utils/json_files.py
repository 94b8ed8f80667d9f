"""JSON files, and the user's cache of values that are slow to compute. The cache can be deleted at any time."""

import errno
import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG
from typing import Any

from microstep.errors import StorageError
from microstep.utils.files import write_atomic


def cache_directory() -> Path:
    """Return $XDG_CACHE_HOME/microstep, by default ~/.cache/microstep."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "microstep"


def load_cached(name: str) -> dict[str, Any]:
    """Return a cached object; an empty one if there is none or it is damaged."""
    with suppress(OSError, ValueError, RuntimeError):
        content = json.loads((cache_directory() / name).read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
    return {}


def store_cached(name: str, content: dict[str, Any]) -> Path | None:
    """Cache an object. Return its file, or None if it can't be written (a read-only home, a full disk)."""
    return store_text(name, json.dumps(content))  # names that are not UTF-8 are kept as escapes


def store_text(name: str, text: str) -> Path | None:
    with suppress(OSError, StorageError, RuntimeError, ValueError):
        file = cache_directory() / name
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, text.encode(errors="backslashreplace"), durable=False)
        return file
    return None


def read_limited(file: Path, max_bytes: int = 2**20) -> bytes:
    """Return an untrusted file's content. Raise OSError if it is no readable regular file, ValueError if too large."""
    if not S_ISREG(file.stat().st_mode):  # reading a pipe would block, and a device has no end
        raise OSError(errno.EINVAL, "it is no regular file", str(file))
    with file.open("rb") as stream:
        content = stream.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"it is far too large: over {max_bytes:,} bytes")
    return content


def read_json(file: Path, max_bytes: int = 2**20) -> dict[str, Any]:
    """Return the JSON object in an untrusted file. Raise like `read_limited`, and ValueError if it holds no object."""
    try:
        content = json.loads(read_limited(file, max_bytes).decode())
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__}, no object")
    return content


def read_json_or_empty(file: Path, max_bytes: int = 2**20) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        return read_json(file, max_bytes)
    return {}


def write_json(file: Path, content: Mapping[str, Any] | Sequence[Any], durable: bool = False) -> None:
    """Write indented JSON. NaN and infinities become null."""
    text = json.dumps(replace_nonfinite(content), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomic(file, f"{text}\n".encode(), durable)


def replace_nonfinite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: replace_nonfinite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [replace_nonfinite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
