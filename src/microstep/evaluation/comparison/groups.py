"""Groups runs that differ only in their seed, and gives each group a distinct name."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from microstep.config.experiment import flatten
from microstep.errors import ConfigError
from microstep.evaluation.comparison.paired import Array, PairedPredictions
from microstep.evaluation.comparison.runs import ReportedRun
from microstep.utils.text import display_path

log = logging.getLogger("microstep.notice")
ABSENT = "null"  #: stands for a missing value
SEED_IN_NAME = re.compile(r"(^|_)seed-\d+(?=_|$)")


@dataclass(frozen=True)
class RunGroup:
    """Runs of one experiment that differ only in their seed."""

    runs: tuple[ReportedRun, ...]  #: sorted by seed

    @property
    def seeds(self) -> list[int]:
        return [run.seed for run in self.runs]

    @property
    def first(self) -> ReportedRun:
        return self.runs[0]

    def of(self, seeds: Sequence[int]) -> RunGroup:
        """Return the group with only some of its seeds."""
        return RunGroup(tuple(run for run in self.runs if run.seed in seeds))

    def stacked(self, name: str) -> Array:
        """Return a column of the reports (S seeds × N samples)."""
        return np.stack([getattr(run.report, name) for run in self.runs])


@dataclass(frozen=True)
class GroupPair:
    """Two groups with the same seeds."""

    run: RunGroup
    baseline: RunGroup

    @property
    def paired(self) -> PairedPredictions:
        """Predictions of both, paired by seed."""
        report = self.baseline.first.report
        run, baseline = (setting.stacked("predictions") for setting in (self.run, self.baseline))
        return PairedPredictions(report.labels, run, baseline, len(report.class_names))


def group_runs(runs: Sequence[ReportedRun], key: str) -> list[RunGroup]:
    """Return the groups of some runs, in the order of their first runs.

    Raises:
        ConfigError: if two runs of a group have the same seed.
    """
    groups: dict[str, list[ReportedRun]] = {}
    for run in runs:
        groups.setdefault(json.dumps(run.setting, sort_keys=True, default=str), []).append(run)
    for group in groups.values():
        group.sort(key=lambda run: run.seed)
        for one, other in pairwise(group):
            if one.seed == other.seed:
                reason = f"{other.directory} is the same experiment with the same seed={one.seed}"
                raise ConfigError(f"{key}={one.directory}", reason, "narrow the pattern")
    return [RunGroup(tuple(group)) for group in groups.values()]


def pair_by_seed(run: RunGroup, baseline: RunGroup) -> GroupPair:
    """Return two groups with their common seeds; two groups of one run each may have different seeds.

    Raises:
        ConfigError: if they have no seed in common.
    """
    if len(run.runs) == len(baseline.runs) == 1:
        if run.seeds != baseline.seeds:
            seeds = (run.first.directory, *run.seeds, *baseline.seeds)
            log.warning("run=%s: its seed is %d, the baseline's %d: chance in training differs too", *seeds)
        return GroupPair(run, baseline)
    common = sorted({*run.seeds} & {*baseline.seeds})
    if not common:
        reason = (
            f"its seeds {format_seed_list(run.seeds)} and the baseline's {format_seed_list(baseline.seeds)} "
            f"have none in common"
        )
        raise ConfigError(f"run={run.first.directory}", reason, "train both with the same seeds: -m seed=0,1,2")
    if alone := sorted({*run.seeds} ^ {*baseline.seeds}):
        log.warning(
            "run=%s: seeds that only one side has are left out: %s", run.first.directory, format_seed_list(alone)
        )
    return GroupPair(run.of(common), baseline.of(common))


def format_seed_list(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))


def name_groups(groups: Sequence[RunGroup]) -> list[str]:
    """Return a name for each group, of the shortest kind that is distinct."""
    short = [shorten_group_name(setting) for setting in groups]
    long = [
        f"{setting.first.directory.resolve().parent.name}/{name}" for setting, name in zip(groups, short, strict=True)
    ]
    kinds = (strip_common_words(short), short, long)
    return next(filter(are_distinct, kinds), [display_path(setting.first.directory) for setting in groups])


def are_distinct(candidates: Sequence[str]) -> bool:
    """Return whether names are distinct and not empty."""
    return all(candidates) and len({*candidates}) == len(candidates)


def shorten_group_name(group: RunGroup) -> str:
    """Return the name of the first run's directory, without the seed if there are several runs."""
    directory = group.first.directory.resolve().name
    return (SEED_IN_NAME.sub("", directory).strip("_") if len(group.runs) > 1 else "") or directory


def strip_common_words(directory_names: Sequence[str]) -> list[str]:
    """Return names without the words, other than a seed, that all of them contain."""
    common = set.intersection(*({word for word in name.split("_") if word[:5] != "seed-"} for name in directory_names))
    return ["_".join(word for word in name.split("_") if word not in common) for name in directory_names]


def find_setting_differences(run: RunGroup, baseline: RunGroup) -> dict[str, tuple[str, str]]:
    """Return the values in which two groups differ, by dotted key, with the effective batch size."""
    sides: list[dict[str, Any]] = [dict(flatten(one.first.setting)) for one in (run, baseline)]
    for side, one in zip(sides, (run, baseline), strict=True):
        side["effective batch"] = one.first.effective_batch_size
    keys = dict.fromkeys([*sides[0], *sides[1]])
    pairs = {key: (format_setting(sides[0].get(key)), format_setting(sides[1].get(key))) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def find_brief_differences(run: RunGroup, baseline: RunGroup) -> dict[str, tuple[str, str]]:
    """Return the differences in short: for a config group with another target, only the keys that both have."""
    found = find_setting_differences(run, baseline)
    others = sorted(key.removesuffix("._target_") for key in found if key.endswith("._target_"))
    kept = {
        key: pair
        for key, pair in found.items()
        if not key.endswith("._target_") and (key.rpartition(".")[0] not in others or ABSENT not in pair)
    }
    return {part: (get_option(run, part), get_option(baseline, part)) for part in others} | kept


def get_option(group: RunGroup, component: str) -> str:
    """Return the option chosen for a config group, or the name of its target."""
    built = dict(flatten(group.first.setting)).get(f"{component}._target_")
    return group.first.saved.record.choices.get(component) or str(built).rpartition(".")[2]


def format_setting(value: Any) -> str:
    """Return a value as it is typed on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    return ABSENT if value is None else str(value)
