"""Reads run.json, and marks a run as failed if its process died. Imports no torch."""

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from microstep.errors import RunInUse, StorageError, escape_unprintable, truncate
from microstep.run.lock import directory_lock
from microstep.utils.json_files import read_json, write_json

T = TypeVar("T")
MAX_TEXT_LENGTH = 500
MAX_NUMBERS = 50


@dataclass(frozen=True)
class RunRecord:
    """Content of a run.json. Anyone may have written the file: a missing or malformed value is None or empty."""

    problem: str | None  #: why the file cannot be read; None also if there is no file
    content: Mapping[str, Any]  #: the JSON object itself, for code that rewrites the file
    status: str | None  #: running, finished, interrupted, pruned or failed
    error: str | None  #: why the run has not finished
    monitor: str | None  #: metric that chooses the best checkpoint
    direction: str | None  #: max or min
    precision: str | None  #: name of the precision that the run computes in
    fingerprint: str | None  #: of the data and their splits
    splits: tuple[str, ...]
    experiment_hash: str | None
    source_hash: str | None
    files: Mapping[str, str]  #: digest of each file that the config named when the run began, by dotted key
    choices: Mapping[str, str]  #: chosen option of each config group
    metrics: Mapping[str, Mapping[str, float]]  #: of each split, and of the `best` epoch
    numbers: Mapping[str, float]  #: epoch, epochs, train_seconds, …
    resumed: list[Any]  #: one entry for each resume
    resumable: bool  #: whether a sweep resumes the run if it failed

    @classmethod
    def read(cls, directory: Path, tolerant: bool = False) -> Self:
        """Read a run.json. Raise StorageError, or return a `problem` if `tolerant`, if the system can't read it."""
        file = directory / "run.json"
        try:
            return cls.of(read_json(file))
        except (FileNotFoundError, NotADirectoryError):
            return cls.of({})
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and not tolerant:  # the run may have finished
                reason = f"it can't be read: {error.strerror}"
                raise StorageError(str(file), reason, "make it readable, and try again") from None
            return cls.of({}, short_text(f"run.json can't be read: {error}"))

    @classmethod
    def of(cls, content: Mapping[str, Any], problem: str | None = None) -> Self:
        names = ("status", "monitor", "direction", "experiment_hash", "source_hash")
        data, splits = (of_type(content.get(key), dict) for key in ("data", "metrics"))
        return cls(
            problem,
            content,
            error=text_of(content.get("error")),
            precision=short_text(of_type(content.get("precision"), dict).get("name")),
            fingerprint=str(data["fingerprint"]) if "fingerprint" in data else None,
            splits=tuple(of_type(data.get("samples"), dict)),
            choices=short_texts(content.get("choices")),
            files=short_texts(content.get("files")),
            metrics={split: numbers(of_type(values, dict)) for split, values in splits.items()},
            numbers=numbers(content),
            resumed=of_type(content.get("resumed"), list),
            resumable=content.get("resumable") is True,
            **{name: short_text(content.get(name)) for name in names},
        )

    @property
    def is_result(self) -> bool:
        """Whether the run ended as it would end again: it has finished, diverged, or was pruned."""
        diverged = self.status == "failed" and self.content.get("diverged") is True
        return diverged or self.status in ("finished", "pruned")

    @property
    def pruned_epoch(self) -> int | None:
        """The epoch after which a search has pruned the run, which may have been resumed since."""
        epoch = number(of_type(self.content.get("pruned"), dict).get("epoch"))
        return None if epoch is None else int(epoch)

    @property
    def stopped(self) -> str | None:
        """Why the run stopped before its last epoch."""
        return short_text(of_type(self.content.get("stopped"), dict).get("by"))

    @property
    def fold_ratio(self) -> float:
        """Validation samples for each training sample; 0 if their numbers are not known."""
        return self.samples.get("val", 0) / max(1, self.samples.get("train", 1))

    @property
    def samples(self) -> dict[str, float]:
        """Number of samples of each split."""
        return numbers(of_type(of_type(self.content.get("data"), dict).get("samples"), dict))

    @property
    def overrides(self) -> dict[str, Any]:
        """Config values set by resumes, by dotted key; the last resume wins. Empty if the list is malformed."""
        with suppress(KeyError, TypeError, ValueError):
            return {str(key): value for entry in self.resumed for key, value in dict(entry["overrides"]).items()}
        return {}


def of_type(value: Any, kind: type[T]) -> T:
    return value if isinstance(value, kind) else kind()


def text_of(value: Any) -> str | None:
    """Return a text on one line that is safe to show; None if it is empty or not a text."""
    return escape_unprintable(of_type(value, str).strip()) or None


def short_text(value: Any) -> str | None:
    text = text_of(value)
    return text and truncate(text, MAX_TEXT_LENGTH)


def short_texts(values: Any) -> dict[str, str]:
    return {short_text(key) or "": text for key, value in of_type(values, dict).items() if (text := short_text(value))}


def number(value: Any) -> float | None:
    """Return a finite number, also if it is written as text; None for anything else. Integers stay integers."""
    with suppress(TypeError, ValueError, OverflowError):
        converted = value if isinstance(value, int) else float(value)
        return converted if math.isfinite(converted) and not isinstance(value, bool) else None
    return None


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers among the first `MAX_NUMBERS` values, with names that are safe to show."""
    first = list(values.items())[:MAX_NUMBERS]
    return {short_text(name) or "": converted for name, value in first if (converted := number(value)) is not None}


def mark_failed(directory: Path, reason: str) -> None:
    """Mark a run whose process died as failed, unless the disk is full. A run that goes on, or has ended, is kept."""
    with suppress(RunInUse, StorageError), directory_lock(directory):
        record = RunRecord.read(directory)
        if record.status in (None, "running"):
            outcome = {"status": "failed", "error": reason, "resumable": True}
            write_json(directory / "run.json", {**record.content, **outcome})
