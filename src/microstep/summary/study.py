"""A sweep as a study: which keys vary, which values each run has, which runs are one setting with several seeds."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, stdev
from typing import Any

from microstep.config import NEUTRAL_KEYS
from microstep.errors import legible
from microstep.summary.reading import Run, Sweep, config_of

SEED = "seed"
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
UNKNOWN = "default"  #: the value of a key that nobody set, where no file tells it
LONGEST = 80  #: letters of a value


@dataclass(frozen=True)
class Sample:
    """Numbers of one kind, one a run."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """The sample standard deviation (n − 1); None for a single number."""
        return stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True)
class Setting:
    """Finished runs that differ in nothing but their seed."""

    label: str
    runs: tuple[Run, ...]
    val: Sample  #: the monitored metric
    test: Sample | None  #: the same metric; None where not every run has it

    def sample(self, fact: str) -> Sample | None:
        """Return a number of run.json, over the runs that have it."""
        found = tuple(value for run in self.runs if (value := run.number(fact)) is not None)
        return Sample(found) if found else None


@dataclass(frozen=True)
class Study:
    """A sweep's runs by the keys that were swept."""

    sweep: Sweep
    keys: tuple[str, ...]  #: with more than one value over the runs, `seed` last
    rows: Mapping[str, tuple[str, ...]]  #: a run's values, by its name
    monitor: str  #: empty while no run says it
    direction: str

    @property
    def runs(self) -> tuple[Run, ...]:
        return self.sweep.runs

    @cached_property
    def scored(self) -> tuple[Run, ...]:
        """The finished runs that have the monitored metric, chosen by it."""
        mine = (self.monitor, self.direction)
        return tuple(r for r in self.runs if r.finished and r.monitored == mine and self.monitor in r.metrics("val"))

    def score(self, run: Run) -> float:
        """Return a scored run's monitored validation metric."""
        return run.metrics("val")[self.monitor]

    def levels(self, key: str) -> tuple[str, ...]:
        """Return a key's values: numbers by size, others as they were typed, or else as they first appear."""
        place = self.keys.index(key)
        there = dict.fromkeys(self.rows[run.name][place] for run in self.runs)
        if all(map(NUMBER.fullmatch, there)):
            return tuple(sorted(there, key=float))
        typed = [value for value in typed_values(self.sweep.command, key) if value in there]
        return tuple(dict.fromkeys([*typed, *there]))

    def others(self, run: Run, key: str) -> tuple[str, ...]:
        """Return a run's values of all keys but one."""
        place = self.keys.index(key) if key in self.keys else len(self.keys)
        return self.rows[run.name][:place] + self.rows[run.name][place + 1 :]

    @cached_property
    def settings(self) -> tuple[Setting, ...]:
        """The settings, the best by the mean of the monitored validation metric first; test has no part in it."""
        groups: dict[tuple[str, ...], list[Run]] = {}
        for run in self.scored:
            groups.setdefault(self.others(run, SEED), []).append(run)
        sign = -1 if self.direction == "max" else 1
        return tuple(sorted(map(self.setting, groups.values()), key=lambda s: (sign * s.val.mean, s.label)))

    def setting(self, runs: list[Run]) -> Setting:
        """Return the setting that some runs are."""
        tested = [value for run in runs if (value := run.metrics("test").get(self.monitor)) is not None]
        test = Sample(tuple(tested)) if len(tested) == len(runs) else None
        return Setting(self.label(runs[0]), tuple(runs), Sample(tuple(map(self.score, runs))), test)

    def label(self, run: Run) -> str:
        """Return what tells a run's setting from the others."""
        pairs = zip(self.keys, self.rows[run.name], strict=True)
        return " ".join(f"{key}={value}" for key, value in pairs if key != SEED) or "the one setting"


def study_of(sweep: Sweep) -> Study:
    """Return a sweep's study."""
    typed = dict.fromkeys(legible(key) for run in sweep.runs for key in run.overrides)
    values = {key: values_of(key, sweep.runs) for key in typed if key not in NEUTRAL_KEYS}
    swept = sorted((key for key, found in values.items() if len(set(found)) > 1), key=lambda key: key == SEED)
    rows = {run.name: tuple(values[key][place] for key in swept) for place, run in enumerate(sweep.runs)}
    said = Counter(run.monitored for run in sweep.runs if run.monitored)
    monitor, direction = said.most_common(1)[0][0] if said else ("", "max")
    return Study(sweep, tuple(swept), rows, monitor, direction)


def values_of(key: str, runs: Iterable[Run]) -> list[str]:
    """Return each run's value of a key. One that was not typed is the default: a run that knows it tells the others."""
    found = [value_of(key, run) for run in runs]
    defaults = (value for value, run in zip(found, runs, strict=True) if value and key not in run.overrides)
    default = next(defaults, UNKNOWN)
    return [value or default for value in found]


def value_of(key: str, run: Run) -> str | None:
    """Return a run's value of a key: as it was typed, else the option chosen, else the config's."""
    if key in run.overrides:
        return canonical(run.overrides[key])
    if option := run.choice(key):
        return canonical(option)
    return None if run.status == "waiting" else leaf(config_of(run), key)


def leaf(node: Any, key: str) -> str | None:
    """Return a dotted key's value in a plain config; None where there is none, or a group of keys."""
    for part in key.split("."):
        if not isinstance(node, dict) or part not in node:
            return None
        node = node[part]
    if isinstance(node, dict):
        return None
    return canonical(json.dumps(node, separators=(",", ":")) if isinstance(node, list) else str(node))


def typed_values(command: str, key: str) -> list[str]:
    """Return a key's values in the order in which a command names them, as far as that can be told."""
    words = [word.lstrip("+").partition("=") for word in command.split()]
    return [canonical(value) for name, _, values in words if name == key for value in values.split(",")]


def canonical(value: str) -> str:
    """Return a value in one spelling: 0.10 is 0.1, True is true; what it is quoted with doesn't count."""
    text = legible(value.strip())[:LONGEST]
    text = text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
    if NUMBER.fullmatch(text):
        return str(int(text)) if text.lstrip("+-").isdecimal() else f"{float(text)!r}"
    return {"True": "true", "False": "false", "None": "null"}.get(text, text)
