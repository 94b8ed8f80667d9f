"""A sweep's directory, read: which runs it has, how each went. Nothing in a run's directory is trusted."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import yaml

from microstep.errors import ConfigError, legible
from microstep.files import read_json, read_small
from microstep.run_config import PlainLoader

LARGEST = 2**24  #: bytes of sweep.json, and of a metrics.csv
LONGEST = 500  #: letters of any text that is shown
STATUSES = ("finished", "failed", "interrupted", "running", "waiting", "unreadable", "stale")


@dataclass(frozen=True)
class Run:
    """One run of a sweep, as far as its files tell."""

    name: str
    directory: Path | None  #: None where the name leads out of the sweep's
    overrides: Mapping[str, str]  #: what was typed, by key; with what it came to, where that was measured
    status: str  #: one of `STATUSES`
    error: str  #: why it has not finished; empty for one that has
    facts: Mapping[str, Any]  #: run.json; empty where it is missing or damaged

    @property
    def finished(self) -> bool:
        """Whether its results count."""
        return self.status == "finished"

    @property
    def monitored(self) -> tuple[str, str] | None:
        """The metric that chose its best checkpoint, and `max` or `min`."""
        found = (text_of(self.facts.get("monitor")), self.facts.get("direction"))
        return (found[0], str(found[1])) if found[0] and found[1] in ("max", "min") else None

    def metrics(self, split: str) -> dict[str, float]:
        """Return a split's metrics of the best checkpoint; `best`: what the best epoch said of itself."""
        return numbers(mapping(mapping(self.facts.get("metrics")).get(split)))

    def number(self, fact: str) -> float | None:
        """Return a number that run.json has."""
        return number(self.facts.get(fact))

    def choice(self, group: str) -> str | None:
        """Return the option that it chose for a group."""
        return text_of(mapping(self.facts.get("choices")).get(group)) or None


@dataclass(frozen=True)
class Sweep:
    """What sweep.json says, and the runs that it names."""

    name: str
    command: str
    runs: tuple[Run, ...]


def read_sweep(directory: Path) -> Sweep:
    """Return a sweep; a run whose files are missing, damaged or strange is one of it all the same.

    Raises:
        ConfigError: where sweep.json itself can't be read.
    """
    try:
        content = read_json(directory / "sweep.json", LARGEST)
    except (OSError, ValueError) as error:
        raise ConfigError(str(directory), f"sweep.json can't be read: {error}", "start the sweep again") from None
    jobs, stale = mapping(content.get("jobs")), mapping(content.get("stale"))
    names = dict.fromkeys([*map(str, jobs), *sorted(stale)])
    runs = tuple(read_run(directory, name, mapping(jobs.get(name)), stale.get(name)) for name in names)
    return Sweep(text_of(content.get("name")) or directory.name, whole_text(content.get("command")), runs)


def read_run(sweep: Path, name: str, job: Mapping[str, Any], changed: Any) -> Run:
    """Return one run: `waiting` where it has no run.json, `unreadable` where that is damaged.

    Args:
        job: what sweep.json says of it. An `error` there is how a process ended that could say nothing itself.
        changed: what has changed since the run, where it is stale.
    """
    words = [str(word).lstrip("+").partition("=") for word in sequence(job.get("overrides"))]
    typed = {key: value for key, _, value in words}
    directory = sweep / name if inside(name) else None
    facts, status, error = described(directory)
    ended = text_of(job.get("error"))
    if ended and status in ("waiting", "running"):
        status, error = "failed", ended
    if changed is not None:
        what = text_of(changed) or "experiment"
        status, error = "stale", f"the {what} has changed since: left out of every comparison; redo=stale runs it again"
    return Run(legible(name), directory, typed | chosen(typed, facts), status, error, facts)


def chosen(typed: Mapping[str, str], facts: Mapping[str, Any]) -> dict[str, str]:
    """Return what a measurement made of what was typed: runs of two precisions are no two seeds of one setting."""
    name = text_of(mapping(facts.get("precision")).get("name"))
    return {"precision": f"auto ({name})"} if typed.get("precision") == "auto" and name else {}


def inside(name: str) -> bool:
    """Say whether a run's name leads to a place below its sweep."""
    path = PurePath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def described(directory: Path | None) -> tuple[dict[str, Any], str, str]:
    """Return what run.json says, the run's status, and why it has not finished."""
    if directory is None:
        return {}, "unreadable", "its name leads out of the sweep's directory"
    try:
        facts = read_json(directory / "run.json")
    except (FileNotFoundError, NotADirectoryError):
        return {}, "waiting", "it has not started"
    except (OSError, ValueError) as error:
        return {}, "unreadable", text_of(f"run.json can't be read: {error}")
    status = text_of(facts.get("status"))
    if status == "running":
        return facts, status, "it is running, or was killed"
    if status not in ("finished", "failed", "interrupted"):
        return facts, "unreadable", "run.json doesn't say how it went"
    return facts, status, "" if status == "finished" else text_of(facts.get("error")) or "it doesn't say why"


def epochs_of(run: Run) -> list[dict[str, float]]:
    """Return the numbers in metrics.csv, a row an epoch; up to the first row that is damaged or half written."""
    if run.directory is None:
        return []
    try:
        return list(whole_rows(read_small(run.directory / "metrics.csv", LARGEST).decode()))
    except (OSError, ValueError, csv.Error):
        return []


def whole_rows(text: str) -> Iterator[dict[str, float]]:
    """Yield rows as long as they are whole; the last line counts only with its end."""
    for row in csv.DictReader(text[: text.rfind("\n") + 1].splitlines()):
        if None in row.values() or number(row.get("epoch")) is None:
            return
        yield numbers({key: value for key, value in row.items() if key})


def config_of(run: Run) -> dict[str, Any]:
    """Return config.yaml as plain data, references as they were written; empty where it is no plain yaml."""
    if run.directory is None:
        return {}
    try:
        return dict(mapping(yaml.load(read_small(run.directory / "config.yaml").decode(), PlainLoader)))
    except Exception:  # yaml's constructors raise any kind
        return {}


def mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def sequence(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def text_of(value: Any) -> str:
    """Return a text fit to be shown, on one line and not too long; empty for anything else."""
    text = whole_text(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def whole_text(value: Any) -> str:
    return legible(value.strip()) if isinstance(value, str) else ""


def number(value: Any) -> float | None:
    """Return a finite number, or what reads as one; None for anything else. Whole ones stay whole."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = value if isinstance(value, int) else float(value)
        return found if math.isfinite(found) else None
    except (ValueError, OverflowError):
        return None


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return those values that are numbers, by names fit to be shown; no more than fifty."""
    found = {text_of(name): number(value) for name, value in list(values.items())[:50]}
    return {name: value for name, value in found.items() if value is not None}
