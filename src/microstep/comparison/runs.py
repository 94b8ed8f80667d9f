"""Runs that are over, found by a directory or a pattern, as their directories describe them."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path
from typing import Any

from microstep.comparison.reports import Report, read_report
from microstep.config import experiment_of, measures, micro_batch_size, without
from microstep.directories import status_of
from microstep.errors import ConfigError, legible
from microstep.files import read_json, shown
from microstep.gate import Gate
from microstep.run_config import run_config
from microstep.targets import current, renamed

log = logging.getLogger("microstep.notice")

#: Keys in which two runs of one setting may differ: the fingerprint says whether the data are the same.
NO_SETTING = frozenset({"seed", "dataset.root"})


@dataclass(frozen=True)
class Run:
    """A run and what it said of a split."""

    directory: Path
    seed: int
    setting: Mapping[str, Any]  #: the experiment, less its seed
    choices: Mapping[str, str]  #: the options chosen, by group, as far as run.json tells
    effective_batch_size: int
    fingerprint: str  #: of the data, and how they were split
    report: Report


@dataclass(frozen=True)
class Asked:
    """Which report of which runs: a key and value of the command line, and the words that make a missing report."""

    key: str
    value: str
    split: str
    checkpoint: str
    report: Path  #: within a run directory

    @property
    def subject(self) -> str:
        return f"{self.key}={self.value}"

    def again(self, directory: Path) -> str:
        """Return the command that makes the report."""
        also = "" if self.checkpoint == "best" else f" checkpoint={self.checkpoint}"
        return f"python evaluate.py run={shlex.quote(shown(directory))} split={self.split}{also}"


def matched(asked: Asked) -> list[Path]:
    """Return the run directory, or those that a pattern (`outputs/sweeps/s/*`) matches, sorted.

    Of a pattern's, those that are not finished are left out with a warning.

    Raises:
        ConfigError: where there is none.
    """
    if (Path(asked.value) / "config.yaml").exists() or not has_magic(asked.value):
        return [Path(asked.value)]
    everything = sorted(glob(asked.value))  # noqa: PTH207  # Path.glob takes no absolute pattern
    found = [path for path in map(Path, everything) if (path / "config.yaml").exists()]
    finished = [path for path in found if status_of(path) == "finished"]
    if left := [path.name for path in found if path not in finished]:
        log.warning("%s: left out, for they are not finished: %s", asked.subject, ", ".join(left))
    if not finished:
        reason = "it matches no run that is finished" if found else "it matches no run directory"
        raise ConfigError(asked.subject, reason, "give a run's directory, or a pattern that matches several, quoted")
    return finished


def read_run(directory: Path, asked: Asked, gate: Gate) -> Run:
    """Return a run with its report.

    Raises:
        ConfigError: where it is no run directory, has no such split, or no report of it: the line says what makes it.
        DataError: where the report is damaged.
    """
    config = subjected(directory, asked, gate)
    fingerprint = known_data(directory, asked)
    try:
        report = read_report(directory / asked.report)
    except FileNotFoundError:
        reason = f"it has no {asked.report}/predictions.csv"
        raise ConfigError(f"{asked.key}={directory}", reason, f"{asked.again(directory)} makes it") from None
    if status_of(directory) != "finished":
        log.warning("%s=%s: the run is not finished; its report is compared as it is", asked.key, directory)
    setting = renamed(without(experiment_of(config), NO_SETTING), current)
    if measures(config):
        setting["precision"] |= {"chosen": precision_of(directory)}
    effective = micro_batch_size(config) * config.accum
    return Run(directory, config.seed, setting, choices_of(directory), effective, fingerprint, report)


def choices_of(directory: Path) -> dict[str, str]:
    """Return the options that a run chose, by group."""
    with suppress(OSError, ValueError, AttributeError):
        found = read_json(directory / "run.json").get("choices")
        return {str(group): legible(str(option)) for group, option in (found or {}).items()}
    return {}


def precision_of(directory: Path) -> str | None:
    """Return the name of the precision that a run has computed in."""
    with suppress(OSError, ValueError, AttributeError, KeyError, TypeError):
        return legible(str(read_json(directory / "run.json")["precision"]["name"]))
    return None


def subjected(directory: Path, asked: Asked, gate: Gate) -> Any:
    """Return a run's config; what is wrong with it is told of the key that was typed."""
    try:
        return run_config(directory, gate)
    except ConfigError as error:
        subject, reason, remedy = error.args
        raise type(error)(subject.replace("run=", f"{asked.key}=", 1), reason, remedy) from None


def known_data(directory: Path, asked: Asked) -> str:
    """Return the fingerprint of a run's data, once it is seen to have the split."""
    subject = f"{asked.key}={directory}"
    try:
        data = read_json(directory / "run.json")["data"]
        fingerprint, splits = str(data["fingerprint"]), [str(name) for name in data["samples"]]
    except (OSError, ValueError, KeyError, TypeError):
        reason = "run.json is missing or damaged, or the run never began"
        raise ConfigError(subject, reason, "give a run's own directory") from None
    if asked.split not in splits:
        raise ConfigError(f"split={asked.split}", "no such split", f"the options are {', '.join(splits)}")
    return fingerprint


def insist_on_same_data(run: Run, baseline: Run) -> None:
    """Refuse runs whose data or classes differ: their numbers are about different things.

    Raises:
        ConfigError: with both fingerprints.
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
