"""Tabulates the runs of a sweep by the keys that vary, and groups runs that differ only in seed and fold."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean, stdev
from typing import Any

from microstep.config.experiment import LATER, REPEAT_KEYS, flatten, is_neutral
from microstep.errors import escape_unprintable
from microstep.run.record import number, short_text
from microstep.sweep.summary.reading import SavedSweep, SweepRun

NUMBER_PATTERN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
UNKNOWN_VALUE = "default"  #: value of a key that was not typed, if no file contains it
#: Values of keys that the config.yaml of a run, perhaps of an older version, lacks.
EARLIER_VALUES = {"experiment": None} | {k: v for k, v in LATER.items() if "." not in k and not isinstance(v, dict)}
MAX_VALUE_LETTERS = 80  #: length to which a value is cut


@dataclass(frozen=True)
class Sample:
    """Numbers of one kind, one per run."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return fmean(self.values)

    @property
    def std(self) -> float | None:
        """The sample standard deviation (n − 1); None for a single number."""
        return stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True)
class RunGroup:
    """Finished runs that differ only in seed and fold: a setting."""

    label: str
    runs: tuple[SweepRun, ...]
    val: Sample  #: the monitored metric
    test: Sample | None  #: the same metric; None if not every run has it

    def get_sample(self, name: str) -> Sample | None:
        values = tuple(value for run in self.runs if (value := run.record.numbers.get(name)) is not None)
        return Sample(values) if values else None


@dataclass(frozen=True)
class SweepTable:
    """Runs of a sweep with their values of the swept keys."""

    name: str
    command: str
    runs: tuple[SweepRun, ...]
    keys: tuple[str, ...]  #: keys with more than one value over the runs, `REPEAT_KEYS` last
    rows: Mapping[str, Mapping[str, str]]  #: name of a run → its values by key
    monitor: str  #: metric that most runs monitor, or the objective of a search; empty if there is none
    direction: str  #: max or min
    study: Mapping[str, Any] = field(default_factory=dict)
    chosen_by: tuple[str, str] | None = None  #: what most runs monitor, if it is not that

    @property
    def is_search(self) -> bool:
        return self.study.get("kind") == "search"

    @cached_property
    def scored_runs(self) -> tuple[SweepRun, ...]:
        """Finished runs whose best checkpoint was chosen by the metric of most runs."""
        monitored = self.chosen_by or (self.monitor, self.direction)
        runs = (run for run in self.runs if run.status == "finished" and run.monitored_metric == monitored)
        return tuple(run for run in runs if self.monitor in run.get_metrics("val"))

    def get_score(self, run: SweepRun) -> float:
        return run.get_metrics("val")[self.monitor]

    def levels(self, key: str) -> tuple[str, ...]:
        """Return a key's values: numbers by size, others in the order of the command, then of the runs."""
        values = dict.fromkeys(row[key] for row in self.rows.values())
        if all(map(NUMBER_PATTERN.fullmatch, values)):
            return tuple(sorted(values, key=float))
        typed = [value for value in parse_typed_values(self.command, key) if value in values]
        return tuple(dict.fromkeys([*typed, *values]))

    def other_values(self, run: SweepRun, *keys: str) -> tuple[str, ...]:
        return tuple(value for other, value in self.rows[run.name].items() if other not in keys)

    @cached_property
    def groups(self) -> tuple[RunGroup, ...]:
        """Groups of runs, the best mean of the monitored validation metric first. Test metrics are not considered.

        A trial of a search is left out if some of its runs were pruned or diverged: the others would flatter it.
        """
        least = number(self.study.get("repeats")) if self.is_search else None
        runs: dict[tuple[str, ...], list[SweepRun]] = {}
        for run in self.scored_runs:
            runs.setdefault(self.other_values(run, *REPEAT_KEYS), []).append(run)
        sign = -1 if self.direction == "max" else 1
        groups = [self.make_group(found) for found in runs.values() if len(found) >= (least or 1)]
        return tuple(sorted(groups, key=lambda g: (sign * g.val.mean, g.label)))

    def make_group(self, runs: list[SweepRun]) -> RunGroup:
        label = " ".join(f"{key}={value}" for key, value in self.rows[runs[0].name].items() if key not in REPEAT_KEYS)
        tested = [value for run in runs if (value := run.get_metrics("test").get(self.monitor)) is not None]
        test = Sample(tuple(tested)) if len(tested) == len(runs) else None
        return RunGroup(label or "the one setting", tuple(runs), Sample(tuple(map(self.get_score, runs))), test)


def tabulate(sweep: SavedSweep) -> SweepTable:
    typed = dict.fromkeys(escape_unprintable(key) for run in sweep.runs for key in run.overrides)
    values = {key: get_key_values(key, sweep.runs) for key in typed if not is_neutral(key)}
    swept = sorted((key for key, column in values.items() if len(set(column)) > 1), key=REPEAT_KEYS.__contains__)
    rows = {run.name: {key: values[key][index] for key in swept} for index, run in enumerate(sweep.runs)}
    runs = drop_repeated_runs(sweep.runs, rows)
    rows = {run.name: rows[run.name] for run in runs}
    monitors = Counter(run.monitored_metric for run in runs if run.monitored_metric)
    chosen_by = monitors.most_common(1)[0][0] if monitors else ("", "max")
    objective, goal = short_text(sweep.study.get("objective")), short_text(sweep.study.get("direction"))
    monitor, direction = (objective, goal) if objective and goal in ("max", "min") else chosen_by
    return SweepTable(sweep.name, sweep.command, runs, tuple(swept), rows, monitor, direction, sweep.study, chosen_by)


def drop_repeated_runs(runs: Sequence[SweepRun], rows: Mapping[str, Mapping[str, str]]) -> tuple[SweepRun, ...]:
    """Return each experiment's first finished run, else its first run. Commands of a sweep may name one differently.

    A run that has not started has no hash yet, so it is dropped if a finished one has the same values.
    """
    current = [run for run in sorted(runs, key=lambda run: run.status != "finished") if run.status != "stale"]
    first = {run.record.experiment_hash or run.name: run.name for run in reversed(current)}
    done = [rows[run.name] for run in current if run.status == "finished"]
    kept = {*first.values()} - {run.name for run in current if run.status == "waiting" and rows[run.name] in done}
    return tuple(run for run in runs if run.status == "stale" or run.name in kept)


def get_key_values(key: str, runs: Iterable[SweepRun]) -> list[str]:
    """Return each run's value of a key. If it was not typed, it is the default, read from any run that has it."""
    values = [get_key_value(key, run) for run in runs]
    defaults = (value for value, run in zip(values, runs, strict=True) if value and key not in run.overrides)
    default = next(defaults, UNKNOWN_VALUE)
    return [value or default for value in values]


def get_key_value(key: str, run: SweepRun) -> str | None:
    """Return a run's value of a key: as typed, else the option of a group, else from config.yaml."""
    if (typed := run.overrides.get(key, run.record.choices.get(key))) is not None:
        return normalize_value(typed)
    config = {} if run.status == "waiting" else run.saved.plain_config
    leaves = EARLIER_VALUES | dict(flatten(config)) if config else {}
    value = leaves.get(key)
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False) if isinstance(value, list) else str(value)
    return normalize_value(text) if key in leaves else None


def parse_typed_values(command: str, key: str) -> list[str]:
    """Return a key's values in the order in which a command lists them; ranges and functions are not expanded."""
    words = [word.lstrip("+").partition("=") for word in command.split()]
    return [normalize_value(value) for name, _, values in words if name == key for value in values.split(",")]


def normalize_value(value: str) -> str:
    """Return a value in one spelling: 0.10 becomes 0.1, 1.0 becomes 1, True becomes true, and quotes are removed."""
    text = escape_unprintable(value.strip())[:MAX_VALUE_LETTERS]
    text = text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
    if NUMBER_PATTERN.fullmatch(text):
        return str(int(text)) if text.lstrip("+-").isdecimal() else f"{float(text)!r}".removesuffix(".0")
    if text[:1] == "[" and text[-1:] == "]":
        return f"[{','.join(map(normalize_value, text[1:-1].split(',')))}]"
    return {"True": "true", "False": "false", "None": "null"}.get(text, text)
