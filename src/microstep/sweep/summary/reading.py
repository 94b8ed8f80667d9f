"""Reads the directory of a sweep: its runs and how each ended. Nothing in a run directory is trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from microstep.errors import ConfigError, escape_unprintable
from microstep.run.record import RunRecord, of_type, short_text, text_of
from microstep.run.saved_run import SavedRun
from microstep.utils.json_files import read_json

MAX_SUMMARY_INPUT_BYTES = 2**24  #: bytes of sweep.json
STATUSES = ("finished", "failed", "interrupted", "running", "waiting", "unreadable", "stale")


@dataclass(frozen=True)
class SweepRun:
    """A run of a sweep, as far as its files tell."""

    name: str
    saved: SavedRun
    overrides: Mapping[str, str]  #: typed values by key, with the epochs of a resume and a measured precision
    status: str  #: one of `STATUSES`
    error: str  #: why the run has not finished; empty if it has

    @property
    def finished(self) -> bool:
        return self.status == "finished"

    @property
    def monitored(self) -> tuple[str, str] | None:
        """Monitored metric, and `max` or `min`."""
        monitor, direction = self.saved.record.monitor, self.saved.record.direction
        return (monitor, direction) if monitor and direction in ("max", "min") else None

    def metrics(self, split: str) -> Mapping[str, float]:
        """Return the metrics of the best checkpoint on a split; for `best`, those of the best epoch."""
        return self.saved.record.metrics.get(split, {})

    def number(self, fact: str) -> float | None:
        """Return a number of run.json."""
        return self.saved.record.numbers.get(fact)

    def choice(self, group: str) -> str | None:
        """Return the option chosen for a config group."""
        return self.saved.record.choices.get(group)


@dataclass(frozen=True)
class SavedSweep:
    """Content of sweep.json with the runs that it names."""

    name: str
    command: str
    runs: tuple[SweepRun, ...]


def read_sweep(directory: Path) -> SavedSweep:
    """Return a sweep. Runs with missing or damaged files are included.

    Raises:
        ConfigError: if sweep.json cannot be read.
    """
    try:
        content = read_json(directory / "sweep.json", MAX_SUMMARY_INPUT_BYTES)
    except (OSError, ValueError) as error:
        raise ConfigError(str(directory), f"sweep.json can't be read: {error}", "start the sweep again") from None
    jobs, stale = of_type(content.get("jobs"), dict), of_type(content.get("stale"), dict)
    names = dict.fromkeys([*map(str, jobs), *sorted(stale)])
    runs = tuple(read_saved_run(directory, name, of_type(jobs.get(name), dict), stale.get(name)) for name in names)
    return SavedSweep(short_text(content.get("name")) or directory.name, text_of(content.get("command")) or "", runs)


def read_saved_run(sweep: Path, name: str, job: Mapping[str, Any], changed: Any) -> SweepRun:
    """Return one run of a sweep.

    Args:
        sweep: directory of the sweep.
        name: name of the run.
        job: entry of the run in sweep.json. Its `error` tells how a process ended that could not record it itself.
        changed: what has changed since the run, if it is stale.
    """
    outside = SavedRun(sweep, RunRecord.of({}, "its name leads out of the sweep's directory"), "run")
    saved = SavedRun.read(sweep / name) if is_inside_sweep(name) else outside
    status, error = ended(saved.record)
    if (reason := short_text(job.get("error"))) and status in ("waiting", "running"):
        status, error = "failed", reason
    if changed is not None:
        what = short_text(changed) or "experiment"
        status, error = "stale", f"the {what} has changed since: left out of every comparison; redo=stale runs it again"
    words = [str(word).lstrip("+").partition("=") for word in of_type(job.get("overrides"), list)]
    typed = {key: value for key, _, value in words}
    return SweepRun(escape_unprintable(name), saved, typed | changes(typed, saved.record), status, error)


def changes(typed: Mapping[str, str], record: RunRecord) -> dict[str, str]:
    """Return overrides that differ from what was typed: the epochs of a resume, and a precision that was measured."""
    epochs = record.overrides.get("epochs")
    found = {} if epochs is None else {"epochs": str(epochs)}
    measured = typed.get("precision") == "auto" and record.precision
    return found | ({"precision": f"auto ({record.precision})"} if measured else {})


def is_inside_sweep(name: str) -> bool:
    """Return whether the name of a run is a path below its sweep."""
    path = PurePath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def ended(record: RunRecord) -> tuple[str, str]:
    """Return the status of a run, and why it has not finished."""
    if record.problem:
        return "unreadable", record.problem
    if not record.content:
        return "waiting", "it has not started"
    reason = short_text(record.error) or "it doesn't say why"
    reasons = {"finished": "", "running": "it is running, or was killed", "failed": reason, "interrupted": reason}
    if record.status not in reasons:
        return "unreadable", "run.json doesn't say how it went"
    return record.status, reasons[record.status]
