"""Reads the directory of a sweep: its runs and how each ended. Nothing in a run directory is trusted."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

from microstep.errors import ConfigError, escape_unprintable
from microstep.run.record import RunRecord, of_type, short_text, text_of
from microstep.run.saved_run import SavedRun
from microstep.utils.json_files import read_json

MAX_SUMMARY_INPUT_BYTES = 2**24  #: bytes of sweep.json
STATUSES = ("finished", "pruned", "failed", "interrupted", "running", "waiting", "unreadable", "stale")


@dataclass(frozen=True)
class SweepRun:
    """A run of a sweep, as far as its files can be read."""

    name: str
    saved: SavedRun
    overrides: Mapping[str, str]  #: typed values by key, with the epochs of a resume and a measured precision
    status: str  #: one of `STATUSES`
    error: str  #: why the run has not finished; empty if it has
    hidden_splits: tuple[str, ...] = ()  #: splits whose metrics are not shown yet

    @property
    def record(self) -> RunRecord:
        return self.saved.record

    @property
    def monitored_metric(self) -> tuple[str, str] | None:
        """Name and direction (`max` or `min`) of the metric that chose the best checkpoint."""
        monitor, direction = self.record.monitor, self.record.direction
        return (monitor, direction) if monitor and direction in ("max", "min") else None

    def get_metrics(self, split: str) -> Mapping[str, float]:
        """Return the metrics of the best checkpoint on a split; for `best`, those of the best epoch."""
        return {} if split in self.hidden_splits else self.record.metrics.get(split, {})


@dataclass(frozen=True)
class SavedSweep:
    """Content of sweep.json with the runs that it names."""

    name: str
    command: str
    runs: tuple[SweepRun, ...]
    study: Mapping[str, Any] = field(default_factory=dict)  #: of a sweep whose runs were chosen by earlier ones


def read_sweep(directory: Path) -> SavedSweep:
    """Return a sweep, including runs with damaged files. Raise ConfigError if sweep.json cannot be read."""
    try:
        content = read_json(directory / "sweep.json", MAX_SUMMARY_INPUT_BYTES)
    except (OSError, ValueError) as error:
        raise ConfigError(str(directory), f"sweep.json can't be read: {error}", "start the sweep again") from None
    jobs, stale = of_type(content.get("jobs"), dict), of_type(content.get("stale"), dict)
    names = dict.fromkeys([*map(str, jobs), *sorted(stale)])
    runs = tuple(read_sweep_run(directory, name, of_type(jobs.get(name), dict), stale.get(name)) for name in names)
    name, command = short_text(content.get("name")) or directory.name, text_of(content.get("command")) or ""
    study = of_type(content.get("study"), dict)
    if study.get("kind") == "decide" and not study.get("verdict"):  # the test split is looked at once, at the end
        runs = tuple(replace(run, hidden_splits=("test",)) for run in runs)
    return SavedSweep(name, command, runs, study)


def read_sweep_run(sweep: Path, name: str, job: Mapping[str, Any], changed: Any) -> SweepRun:
    """Return one run of a sweep from its entry in sweep.json; if it is stale, `changed` says what has changed since.

    The entry's `error` was reported by a process that could not write run.json.
    """
    path = PurePath(name)
    saved = SavedRun(sweep, RunRecord.of({}, "its name leads out of the sweep's directory"), "run")
    if path.parts and not path.is_absolute() and ".." not in path.parts:
        saved = SavedRun(sweep / name, RunRecord.read(sweep / name, tolerant=True), "run")
    status, error = get_status(saved.record)
    if (reason := short_text(job.get("error"))) and status in ("waiting", "running"):
        status, error = "failed", reason
    if changed is not None:
        part = short_text(changed) or "experiment"
        status, error = "stale", f"the {part} has changed since: left out of every comparison; redo=stale runs it again"
    words = [str(word).lstrip("+").partition("=") for word in of_type(job.get("overrides"), list)]
    overrides = {key: value for key, _, value in words}
    return SweepRun(escape_unprintable(name), saved, overrides | get_changes(overrides, saved.record), status, error)


def get_changes(overrides: Mapping[str, str], record: RunRecord) -> dict[str, str]:
    changes = {key: str(record.overrides[key]) for key in ("epochs", "steps") if record.overrides.get(key) is not None}
    if (typed := overrides.get("precision", record.choices.get("precision"))) in ("auto", "amp") and record.precision:
        changes["precision"] = f"{typed} ({record.precision})"
    return changes


def get_status(record: RunRecord) -> tuple[str, str]:
    if record.problem:
        return "unreadable", record.problem
    if not record.content:
        return "waiting", "it has not started"
    reason = short_text(record.error) or "it doesn't say why"
    reasons = {"finished": "", "running": "it is running, or was killed"}
    reasons |= dict.fromkeys(("failed", "interrupted", "pruned"), reason)
    if record.status not in reasons:
        return "unreadable", "run.json has no valid status"
    return record.status, reasons[record.status]
