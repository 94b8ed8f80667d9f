"""Finds the saved runs to compare, and reads their reports."""

import logging
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from glob import glob, has_magic
from pathlib import Path
from typing import Any

import numpy as np

from microstep.config.allowlist import Allowlist
from microstep.config.experiment import DATA_KEYS, REPEAT_KEYS, drop_keys, effective_batch_size, extract_experiment
from microstep.config.targets import CLASSIFICATION, current, renamed
from microstep.errors import ConfigError
from microstep.evaluation.comparison.predictions_file import SavedPredictions, SavedScores, read_report
from microstep.evaluation.evaluate import missing_split_error, read_weights
from microstep.run.layout import get_report_path
from microstep.run.record import RunRecord
from microstep.run.saved_run import SavedRun
from microstep.training.provenance import possible_precisions
from microstep.utils.terminal import called
from microstep.utils.text import display_path, format_names

log = logging.getLogger("microstep.notice")

#: Keys in which runs of one group may differ. The fingerprint tells whether the data are the same.
IGNORED_KEYS = DATA_KEYS.union(REPEAT_KEYS)


@dataclass(frozen=True)
class ReportedRun:
    """A saved run with its report on a split."""

    saved: SavedRun
    config_seed: int
    division: Mapping[str, Any]  #: fold and the like, by key
    settings: Mapping[str, Any]  #: the experiment without seed and fold, with the epochs of the last resume
    effective_batch_size: int
    fingerprint: str  #: of the data and their splits
    report: SavedPredictions | SavedScores
    checkpoint: str  #: whose report it is

    @property
    def directory(self) -> Path:
        return self.saved.directory

    @property
    def seed(self) -> Any:
        """The seed; of one of several folds a text such as `0 of fold 2`."""
        return self.format_seed(self.division)

    @property
    def order(self) -> tuple[Any, ...]:
        return (self.config_seed, *(self.division.get(key, 0) for key in ("dataset.repeat", "dataset.fold")))

    def format_seed(self, keys: Iterable[str]) -> Any:
        parts = [f"{key.rpartition('.')[2]} {self.division[key]}" for key in keys]
        return f"{self.config_seed} of {', '.join(parts)}" if parts else self.config_seed


@dataclass(frozen=True)
class ReportRequest:
    """Runs to compare, and the report to read from each."""

    key: str  #: run or baseline
    value: str  #: a run directory or a pattern
    split: str
    checkpoint: str
    overrides: Mapping[str, Any] | None = None  #: of the runs' configs, by dotted key

    @property
    def subject(self) -> str:
        return f"{self.key}={self.value}"

    @property
    def report(self) -> Path:
        return get_report_path(self.split, self.checkpoint)


def find_run_directories(request: ReportRequest) -> list[Path]:
    """Return the run directory, or the sorted directories of the finished runs that a pattern matches.

    Others are left out with a warning. Raise ConfigError if none is finished.
    """
    nearest = find_nearest_paths(request.value)
    if (Path(request.value) / "config.yaml").exists() or not (nearest or has_magic(request.value)):
        return [Path(request.value)]
    paths = map(Path, sorted(glob(request.value)))  # noqa: PTH207  # Path.glob takes no absolute pattern
    found = [path for path in paths if (path / "config.yaml").exists()]
    finished = [path for path in found if RunRecord.read(path).status == "finished"]
    if unfinished := [path.name for path in found if path not in finished]:
        log.warning("%s: left out because they are not finished: %s", request.subject, ", ".join(unfinished))
    if not finished:
        reason = "it matches no run that is finished" if found else "it matches no run directory"
        others = f"the nearest are {format_names(nearest)}" if nearest else "give directories with a config.yaml"
        raise ConfigError(request.subject, reason, "resume one of them" if found else others)
    return finished


def find_nearest_paths(pattern: str) -> list[str]:
    """Return the directories nearest to the first part of a path that matches nothing; of a pattern, however unlike."""
    missing = [path for path in (Path(pattern), *Path(pattern).parents) if not glob(str(path))]  # noqa: PTH207
    if not missing:
        return []
    siblings = map(Path, sorted(glob(f"{missing[-1].parent}/*/")))  # noqa: PTH207
    paths = {path.name: str(path) for path in siblings}
    cutoff = 0.0 if has_magic(pattern) else 0.4
    return [paths[name] for name in get_close_matches(missing[-1].name.strip("*"), paths, cutoff=cutoff)]


def read_compared_run(directory: Path, request: ReportRequest, allowlist: Allowlist) -> ReportedRun:
    """Return a run with its report. A ConfigError has the command that makes a missing one; damage is a DataError."""
    saved = SavedRun.read(directory, request.key, request.overrides)
    config = saved.config(allowlist, keys={"epochs", "steps"})  # the only override of a resume that changes the result
    fingerprint, splits = saved.fingerprint, saved.record.splits
    if request.split not in splits:
        raise missing_split_error(request.split, splits)
    try:
        report = read_report(directory / request.report)
    except FileNotFoundError:
        raise missing_report_error(saved, request, current(str(config.task.get("_target_")))) from None
    if saved.record.status != "finished":
        log.warning("%s: the run is not finished; its report is compared as it is", saved.subject)
    files = saved.record.files
    settings = renamed(drop_keys(extract_experiment(config), IGNORED_KEYS | files.keys()), current)
    settings |= {"files": files} if files else {}
    if None not in possible_precisions(config):
        settings["precision"] |= {"chosen": saved.record.precision}
    batch_size = effective_batch_size(config)
    repeat, fold = config.dataset.get("repeat"), config.dataset.get("fold")
    division = ({"dataset.repeat": repeat} if repeat else {}) | ({} if fold is None else {"dataset.fold": fold})
    return ReportedRun(saved, config.seed, division, settings, batch_size, fingerprint, report, request.checkpoint)


def missing_report_error(saved: SavedRun, request: ReportRequest, task: str) -> ConfigError:
    """Return an error with the command that makes the report, if any can. Raise CheckpointRefused without weights."""
    names = {file.name for file in saved.directory.glob("reports/*/*")}
    if task != CLASSIFICATION and names and "predictions.csv" not in names:
        remedy = f"compare metrics.{request.split} in run.json of both runs, or let the task's report write it"
        return ConfigError(saved.subject, f"its task ({task}) writes no predictions.csv or scores.csv", remedy)
    read_weights(saved.directory, request.checkpoint)
    checkpoint = "" if request.checkpoint == "best" else f" checkpoint={request.checkpoint}"
    words = f"run={shlex.quote(display_path(saved.directory))} split={request.split}{checkpoint}"
    reason = f"it has no {request.report}/predictions.csv"
    return ConfigError(saved.subject, reason, f"{called('evaluate')} {words} makes it")


def check_same_data(run: ReportedRun, baselines: Sequence[ReportedRun]) -> None:
    """Check that a run has the data and the samples of the baseline of its fold, and the classes of all."""
    baseline = next((one for one in baselines if one.division == run.division), run)
    fingerprints = f"(data {baseline.fingerprint[:16]}, not {run.fingerprint[:16]})"
    other = f"baseline={baseline.directory} {fingerprints}"
    one, two = run.report, baseline.report
    if run.fingerprint != baseline.fingerprint:
        reason, remedy = f"its data are not those of {other}", "compare runs on the same data"
    elif one.class_names != baselines[0].report.class_names:
        reason, remedy = f"its classes are not those of {other}", "compare runs of the same classes"
    elif not np.array_equal(one.indices, two.indices) or not np.array_equal(one.labels, two.labels):
        reason, remedy = f"its report is of other samples or labels than that of {other}", "evaluate both again"
    else:
        return
    raise ConfigError(f"run={run.directory}", reason, remedy)
