"""Tabulate the runs of a sweep by the keys that vary, and group runs that differ only in their seed."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, stdev
from typing import Any

from microstep.config.experiment import NEUTRAL_KEYS
from microstep.errors import escape_unprintable
from microstep.sweep.summary.reading import SavedSweep, SweepRun

SEED_KEY = "seed"
NUMBER_PATTERN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
UNKNOWN_VALUE = "default"  #: value of a key that was not typed, if no file tells it
MAX_VALUE_LETTERS = 80  #: characters of a value that are kept


@dataclass(frozen=True)
class Sample:
    """Numbers of one kind, one per run."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """The sample standard deviation (n − 1); None for a single number."""
        return stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True)
class RunGroup:
    """Finished runs that differ only in their seed."""

    label: str
    runs: tuple[SweepRun, ...]
    val: Sample  #: the monitored metric
    test: Sample | None  #: the same metric; None if not every run has it

    def sample(self, fact: str) -> Sample | None:
        """Return a number of run.json over the runs that have it."""
        found = tuple(value for run in self.runs if (value := run.number(fact)) is not None)
        return Sample(found) if found else None


@dataclass(frozen=True)
class SweepTable:
    """A sweep's runs and their values of the swept keys."""

    name: str
    command: str
    runs: tuple[SweepRun, ...]
    keys: tuple[str, ...]  #: with more than one value over the runs, `seed` last
    rows: Mapping[str, Mapping[str, str]]  #: each run's values by key, by its name
    monitor: str  #: empty if no run names it
    direction: str

    @cached_property
    def scored(self) -> tuple[SweepRun, ...]:
        """The finished runs whose best checkpoint was chosen by the monitored metric."""
        mine = (self.monitor, self.direction)
        return tuple(r for r in self.runs if r.finished and r.monitored == mine and self.monitor in r.metrics("val"))

    def score(self, run: SweepRun) -> float:
        """Return a scored run's monitored validation metric."""
        return run.metrics("val")[self.monitor]

    def levels(self, key: str) -> tuple[str, ...]:
        """Return a key's values: numbers by size, others in the order of the command, then of the runs."""
        found = dict.fromkeys(row[key] for row in self.rows.values())
        if all(map(NUMBER_PATTERN.fullmatch, found)):
            return tuple(sorted(found, key=float))
        typed = [value for value in parse_typed_values(self.command, key) if value in found]
        return tuple(dict.fromkeys([*typed, *found]))

    def others(self, run: SweepRun, key: str) -> tuple[str, ...]:
        """Return a run's values of all keys but one."""
        return tuple(value for other, value in self.rows[run.name].items() if other != key)

    @cached_property
    def settings(self) -> tuple[RunGroup, ...]:
        """The settings, the best mean of the monitored validation metric first. Test metrics are not considered."""
        groups: dict[tuple[str, ...], list[SweepRun]] = {}
        for run in self.scored:
            groups.setdefault(self.others(run, SEED_KEY), []).append(run)
        sign = -1 if self.direction == "max" else 1
        return tuple(sorted(map(self.setting, groups.values()), key=lambda s: (sign * s.val.mean, s.label)))

    def setting(self, runs: list[SweepRun]) -> RunGroup:
        """Return the setting that consists of some runs."""
        tested = [value for run in runs if (value := run.metrics("test").get(self.monitor)) is not None]
        test = Sample(tuple(tested)) if len(tested) == len(runs) else None
        return RunGroup(self.label(runs[0]), tuple(runs), Sample(tuple(map(self.score, runs))), test)

    def label(self, run: SweepRun) -> str:
        """Return a run's values of the swept keys except the seed, as a text."""
        values = (f"{key}={value}" for key, value in self.rows[run.name].items() if key != SEED_KEY)
        return " ".join(values) or "the one setting"


def tabulate(sweep: SavedSweep) -> SweepTable:
    """Return a sweep's runs by the keys that have more than one value."""
    typed = dict.fromkeys(escape_unprintable(key) for run in sweep.runs for key in run.overrides)
    values = {key: get_key_values(key, sweep.runs) for key in typed if key not in NEUTRAL_KEYS}
    swept = sorted((key for key, found in values.items() if len(set(found)) > 1), key=lambda key: key == SEED_KEY)
    rows = {run.name: {key: values[key][index] for key in swept} for index, run in enumerate(sweep.runs)}
    monitors = Counter(run.monitored for run in sweep.runs if run.monitored)
    monitor, direction = monitors.most_common(1)[0][0] if monitors else ("", "max")
    return SweepTable(sweep.name, sweep.command, sweep.runs, tuple(swept), rows, monitor, direction)


def get_key_values(key: str, runs: Iterable[SweepRun]) -> list[str]:
    """Return each run's value of a key. If it was not typed, it is the default, read from any run that tells it."""
    found = [get_key_value(key, run) for run in runs]
    defaults = (value for value, run in zip(found, runs, strict=True) if value and key not in run.overrides)
    default = next(defaults, UNKNOWN_VALUE)
    return [value or default for value in found]


def get_key_value(key: str, run: SweepRun) -> str | None:
    """Return a run's value of a key: as typed, else the option of a group, else from config.yaml."""
    if key in run.overrides:
        return normalize_value(run.overrides[key])
    if option := run.choice(key):
        return normalize_value(option)
    return None if run.status == "waiting" else get_leaf(run.saved.plain_config, key)


def get_leaf(node: Any, key: str) -> str | None:
    """Return a dotted key's value in a plain config; None if it is missing or a group of keys."""
    for part in key.split("."):
        if not isinstance(node, dict) or part not in node:
            return None
        node = node[part]
    if isinstance(node, dict):
        return None
    return normalize_value(json.dumps(node, separators=(",", ":")) if isinstance(node, list) else str(node))


def parse_typed_values(command: str, key: str) -> list[str]:
    """Return a key's values in the order in which a command lists them; ranges and functions are not expanded."""
    words = [word.lstrip("+").partition("=") for word in command.split()]
    return [normalize_value(value) for name, _, values in words if name == key for value in values.split(",")]


def normalize_value(value: str) -> str:
    """Return a value in one spelling: 0.10 becomes 0.1, True becomes true, and quotes are removed."""
    text = escape_unprintable(value.strip())[:MAX_VALUE_LETTERS]
    text = text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
    if NUMBER_PATTERN.fullmatch(text):
        return str(int(text)) if text.lstrip("+-").isdecimal() else f"{float(text)!r}"
    return {"True": "true", "False": "false", "None": "null"}.get(text, text)
