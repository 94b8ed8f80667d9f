"""What is dear to compute and a pure function of the data, kept in the user's cache directory: losing it costs time."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from microstep.errors import StorageError
from microstep.files import write_whole


def cache_directory() -> Path:
    """Return where: $XDG_CACHE_HOME/microstep, by default ~/.cache/microstep."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "microstep"


def recalled(name: str) -> dict[str, Any]:
    """Return what was remembered; empty where there is nothing, or nothing whole."""
    with suppress(OSError, ValueError, RuntimeError):
        content = json.loads((cache_directory() / name).read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
    return {}


def remember(name: str, content: dict[str, Any]) -> Path | None:
    """Keep a value; where nothing can be written (a read-only home, a full disk) it is simply not kept."""
    return store_text(name, json.dumps(content))  # names that are no UTF-8 survive as escapes


def store_text(name: str, text: str) -> Path | None:
    """Write a file of the cache and return its path; None if it can't be written."""
    with suppress(OSError, StorageError, RuntimeError, ValueError):
        file = cache_directory() / name
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, text.encode(errors="backslashreplace"), durable=False)
        return file
    return None
