"""Finds the saved runs that are compared, and reads their reports."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path
from typing import Any

from microstep.config.allowlist import Allowlist
from microstep.config.experiment import drop_keys, extract_experiment, micro_batch_size, precision_is_measured
from microstep.config.targets import current, renamed
from microstep.errors import ConfigError
from microstep.evaluation.comparison.predictions_file import SavedPredictions, read_predictions
from microstep.run.record import RunRecord
from microstep.run.saved_run import SavedRun
from microstep.utils.terminal import called
from microstep.utils.text import display_path

log = logging.getLogger("microstep.notice")

#: Keys in which runs of one setting may differ. The fingerprint tells whether the data are the same.
IGNORED_KEYS = frozenset({"seed", "dataset.root"})


@dataclass(frozen=True)
class ReportedRun:
    """A saved run with its report on a split."""

    saved: SavedRun
    seed: int
    setting: Mapping[str, Any]  #: the experiment without its seed, with the epochs of the last resume
    effective_batch_size: int
    fingerprint: str  #: of the data and their splits
    report: SavedPredictions

    @property
    def directory(self) -> Path:
        return self.saved.directory


@dataclass(frozen=True)
class ReportRequest:
    """The report of a split that is asked for, and the runs whose reports are."""

    key: str  #: run or baseline
    value: str  #: a run directory or a pattern
    split: str
    checkpoint: str
    report: Path  #: path within a run directory

    @property
    def subject(self) -> str:
        return f"{self.key}={self.value}"

    def again(self, directory: Path) -> str:
        """Return the command that makes the report of a run."""
        also = "" if self.checkpoint == "best" else f" checkpoint={self.checkpoint}"
        return f"{called('evaluate')} run={shlex.quote(display_path(directory))} split={self.split}{also}"


def find_run_directories(request: ReportRequest) -> list[Path]:
    """Return the run directory, or the sorted directories of the finished runs that a pattern matches.

    Runs that are not finished are left out with a warning.

    Raises:
        ConfigError: if the pattern matches no finished run.
    """
    if (Path(request.value) / "config.yaml").exists() or not has_magic(request.value):
        return [Path(request.value)]
    everything = sorted(glob(request.value))  # noqa: PTH207  # Path.glob takes no absolute pattern
    found = [path for path in map(Path, everything) if (path / "config.yaml").exists()]
    finished = [path for path in found if RunRecord.read(path).status == "finished"]
    if left := [path.name for path in found if path not in finished]:
        log.warning("%s: left out, for they are not finished: %s", request.subject, ", ".join(left))
    if not finished:
        reason = "it matches no run that is finished" if found else "it matches no run directory"
        raise ConfigError(request.subject, reason, "give a run's directory, or a pattern that matches several, quoted")
    return finished


def read_compared_run(directory: Path, request: ReportRequest, allowlist: Allowlist) -> ReportedRun:
    """Return a run with its report.

    Raises:
        ConfigError: if the directory holds no run, the data have no such split, or the report is missing; the line
            has the command that makes it.
        DataError: if the report is damaged.
    """
    saved = SavedRun.read(directory, request.key)
    config = saved.config(allowlist, keys={"epochs"})  # of the overrides of a resume, only this one changes the result
    fingerprint, splits = saved.fingerprint, saved.record.splits
    if request.split not in splits:
        raise ConfigError(f"split={request.split}", "no such split", f"the options are {', '.join(splits)}")
    try:
        report = read_predictions(directory / request.report)
    except FileNotFoundError:
        reason = f"it has no {request.report}/predictions.csv"
        raise ConfigError(saved.subject, reason, f"{request.again(directory)} makes it") from None
    if saved.record.status != "finished":
        log.warning("%s: the run is not finished; its report is compared as it is", saved.subject)
    setting = renamed(drop_keys(extract_experiment(config), IGNORED_KEYS), current)
    if precision_is_measured(config):
        setting["precision"] |= {"chosen": saved.record.precision}
    return ReportedRun(saved, config.seed, setting, micro_batch_size(config) * config.accum, fingerprint, report)


def check_same_data(run: ReportedRun, baseline: ReportedRun) -> None:
    """Refuse runs whose data, classes or samples differ.

    Raises:
        ConfigError: names both fingerprints.
    """
    prints = f"(data {baseline.fingerprint[:16]}, not {run.fingerprint[:16]})"
    subject, other = f"run={run.directory}", f"baseline={baseline.directory}"
    if run.fingerprint != baseline.fingerprint:
        raise ConfigError(subject, f"its data are not those of {other} {prints}", "compare runs on the same data")
    one, two = run.report, baseline.report
    if one.class_names != two.class_names:
        raise ConfigError(subject, f"its classes are not those of {other} {prints}", "compare runs of the same classes")
    same = len(one.indices) == len(two.indices) and (one.indices == two.indices).all()
    if not same or (one.labels != two.labels).any():
        reason = f"its report is of other samples or labels than that of {other} {prints}"
        raise ConfigError(subject, reason, "evaluate both again")
