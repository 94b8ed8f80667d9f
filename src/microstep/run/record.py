"""Reads run.json, the record that a run keeps of itself. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from microstep.errors import RunInUse, escape_unprintable
from microstep.run.lock import directory_lock
from microstep.utils.json_files import read_json, write_json

T = TypeVar("T")
LONGEST = 500  #: letters of a text that is shown
MOST = 50  #: numbers of one kind


@dataclass(frozen=True)
class RunRecord:
    """Content of a run.json. Anyone may have written the file: a missing or malformed value is None or empty."""

    problem: str | None  #: why the file cannot be read; None also if there is no file
    content: Mapping[str, Any]  #: the JSON object itself, for code that rewrites the file
    status: str | None  #: running, finished, interrupted or failed
    error: str | None  #: why the run has not finished
    monitor: str | None  #: metric that chooses the best checkpoint
    direction: str | None  #: max or min
    precision: str | None  #: name of the precision that the run computes in
    fingerprint: str | None  #: of the data and their splits
    splits: tuple[str, ...]
    experiment_hash: str | None
    source_hash: str | None
    choices: Mapping[str, str]  #: chosen option of each config group
    metrics: Mapping[str, Mapping[str, float]]  #: of each split, and of the `best` epoch
    numbers: Mapping[str, float]  #: epoch, epochs, train_seconds, …
    resumed: list[Any]  #: one entry for each resume

    @classmethod
    def read(cls, directory: Path) -> RunRecord:
        """Return the record of a run directory."""
        try:
            return cls.of(read_json(directory / "run.json"))
        except (FileNotFoundError, NotADirectoryError):
            return cls.of({})
        except (OSError, ValueError) as error:
            return cls.of({}, short_text(f"run.json can't be read: {error}"))

    @classmethod
    def of(cls, content: Mapping[str, Any], problem: str | None = None) -> RunRecord:
        """Return the record with some content."""
        names = ("status", "monitor", "direction", "experiment_hash", "source_hash")
        data, parts = of_type(content.get("data"), dict), of_type(content.get("metrics"), dict)
        choices = {group: short_text(option) for group, option in of_type(content.get("choices"), dict).items()}
        return cls(
            problem,
            content,
            error=text_of(content.get("error")),
            precision=short_text(of_type(content.get("precision"), dict).get("name")),
            fingerprint=str(data["fingerprint"]) if "fingerprint" in data else None,
            splits=tuple(of_type(data.get("samples"), dict)),
            choices={group: option for group, option in choices.items() if option},
            metrics={part: numbers(of_type(found, dict)) for part, found in parts.items()},
            numbers=numbers(content),
            resumed=of_type(content.get("resumed"), list),
            **{name: short_text(content.get(name)) for name in names},
        )

    @property
    def overrides(self) -> dict[str, Any]:
        """Config values set by resumes, by dotted key; the last resume wins. Empty if the list is malformed."""
        with suppress(KeyError, TypeError, ValueError):
            return {str(key): value for one in self.resumed for key, value in dict(one["overrides"]).items()}
        return {}


def of_type(value: Any, kind: type[T]) -> T:
    """Return a value if it is of a type, else an empty one of that type."""
    return value if isinstance(value, kind) else kind()


def text_of(value: Any) -> str | None:
    """Return a text that is safe to show, on one line; None if it is empty or no text."""
    return escape_unprintable(of_type(value, str).strip()) or None


def short_text(value: Any) -> str | None:
    """Return the same, cut to `LONGEST` letters."""
    text = text_of(value)
    return text if text is None or len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def number(value: Any) -> float | None:
    """Return a finite number, also if it is written as text; None for anything else. Integers stay integers."""
    with suppress(TypeError, ValueError, OverflowError):
        found = value if isinstance(value, int) else float(value)
        return found if math.isfinite(found) and not isinstance(value, bool) else None
    return None


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the values that are numbers, at most `MOST`, with names that are safe to show."""
    found = {short_text(name) or "": number(value) for name, value in list(values.items())[:MOST]}
    return {name: value for name, value in found.items() if value is not None}


def mark_failed(directory: Path, reason: str) -> None:
    """Mark a run as failed, unless its process is at work or has recorded how it ended."""
    with suppress(RunInUse), directory_lock(directory):
        record = RunRecord.read(directory)
        if record.status in (None, "running"):
            write_json(directory / "run.json", {**record.content, "status": "failed", "error": reason})
