"""Runs grouped by what they have in common, and named so that they can be told apart."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from microstep.comparison.paired import Array, Paired
from microstep.comparison.runs import Run
from microstep.config import flatten
from microstep.errors import ConfigError
from microstep.files import shown

log = logging.getLogger("microstep.notice")
ABSENT = "null"  #: a value that isn't there
SEED_IN_NAME = re.compile(r"(^|_)seed-\d+(?=_|$)")


@dataclass(frozen=True)
class Setting:
    """Runs of one experiment that differ in their seeds alone."""

    runs: tuple[Run, ...]  #: sorted by seed

    @property
    def seeds(self) -> list[int]:
        return [run.seed for run in self.runs]

    @property
    def first(self) -> Run:
        return self.runs[0]

    def of(self, seeds: Sequence[int]) -> Setting:
        """Return it with some of its seeds."""
        return Setting(tuple(run for run in self.runs if run.seed in seeds))

    def stacked(self, name: str) -> Array:
        """Return a column of its reports: S × N."""
        return np.stack([getattr(run.report, name) for run in self.runs])


@dataclass(frozen=True)
class Match:
    """Two settings with the same seeds."""

    run: Setting
    baseline: Setting

    @property
    def paired(self) -> Paired:
        """Their predictions, seed by seed."""
        report = self.baseline.first.report
        run, baseline = (setting.stacked("predictions") for setting in (self.run, self.baseline))
        return Paired(report.labels, run, baseline, len(report.class_names))


def grouped(runs: Sequence[Run], key: str) -> list[Setting]:
    """Return the settings of some runs, in the order of their first runs.

    Raises:
        ConfigError: where two runs of one setting have the same seed: they are one run, made twice.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(json.dumps(run.setting, sort_keys=True, default=str), []).append(run)
    for group in groups.values():
        group.sort(key=lambda run: run.seed)
        for one, other in pairwise(group):
            if one.seed == other.seed:
                reason = f"{other.directory} is the same experiment with the same seed={one.seed}"
                raise ConfigError(f"{key}={one.directory}", reason, "narrow the pattern")
    return [Setting(tuple(group)) for group in groups.values()]


def match(run: Setting, baseline: Setting) -> Match:
    """Return the two with the seeds that both have; one run each is compared as it is.

    Raises:
        ConfigError: where no seed is common to several.
    """
    if len(run.runs) == len(baseline.runs) == 1:
        if run.seeds != baseline.seeds:
            seeds = (run.first.directory, *run.seeds, *baseline.seeds)
            log.warning("run=%s: its seed is %d, the baseline's %d: chance in training differs too", *seeds)
        return Match(run, baseline)
    common = sorted({*run.seeds} & {*baseline.seeds})
    if not common:
        reason = f"its seeds {listed(run.seeds)} and the baseline's {listed(baseline.seeds)} have none in common"
        raise ConfigError(f"run={run.first.directory}", reason, "train both with the same seeds: -m seed=0,1,2")
    if alone := sorted({*run.seeds} ^ {*baseline.seeds}):
        log.warning("run=%s: seeds that only one side has are left out: %s", run.first.directory, listed(alone))
    return Match(run.of(common), baseline.of(common))


def listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))


def names(settings: Sequence[Setting]) -> list[str]:
    """Return a name for each: the shortest kind that tells them apart."""
    short = [short_name(setting) for setting in settings]
    long = [
        f"{setting.first.directory.resolve().parent.name}/{name}" for setting, name in zip(settings, short, strict=True)
    ]
    kinds = (parted(short), short, long)
    return next(filter(telling, kinds), [shown(setting.first.directory) for setting in settings])


def telling(found: Sequence[str]) -> bool:
    """Say whether names tell their bearers apart."""
    return all(found) and len({*found}) == len(found)


def short_name(setting: Setting) -> str:
    """Return the run's directory, less the seed in its name where there are several."""
    directory = setting.first.directory.resolve().name
    return (SEED_IN_NAME.sub("", directory).strip("_") if len(setting.runs) > 1 else "") or directory


def parted(found: Sequence[str]) -> list[str]:
    """Return names less the words that all of them have, but for a seed: of `epochs-2_model-mlp`, `model-mlp`."""
    common = set.intersection(*({word for word in name.split("_") if word[:5] != "seed-"} for name in found))
    return ["_".join(word for word in name.split("_") if word not in common) for name in found]


def differences(run: Setting, baseline: Setting) -> dict[str, tuple[str, str]]:
    """Return what the two settings were told differently, by dotted key; the effective batch too, where it differs."""
    sides: list[dict[str, Any]] = [dict(flatten(one.first.setting)) for one in (run, baseline)]
    for side, one in zip(sides, (run, baseline), strict=True):
        side["effective batch"] = one.first.effective_batch_size
    keys = dict.fromkeys([*sides[0], *sides[1]])
    pairs = {key: (told(sides[0].get(key)), told(sides[1].get(key))) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def briefly(run: Setting, baseline: Setting) -> dict[str, tuple[str, str]]:
    """Return the same in few words: where a part is another one altogether, of its keys those that both have."""
    found = differences(run, baseline)
    others = sorted(key.removesuffix("._target_") for key in found if key.endswith("._target_"))
    kept = {
        key: pair
        for key, pair in found.items()
        if not key.endswith("._target_") and (key.rpartition(".")[0] not in others or ABSENT not in pair)
    }
    return {part: (option(run, part), option(baseline, part)) for part in others} | kept


def option(setting: Setting, part: str) -> str:
    """Return what a part was chosen by, else what it builds."""
    built = dict(flatten(setting.first.setting)).get(f"{part}._target_")
    return setting.first.choices.get(part) or str(built).rpartition(".")[2]


def told(value: Any) -> str:
    """Return a value as it is typed."""
    if isinstance(value, bool):
        return str(value).lower()
    return ABSENT if value is None else str(value)
