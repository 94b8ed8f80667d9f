"""Groups runs that differ only in seed and fold."""

import json
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from operator import attrgetter
from typing import Any

import numpy as np

from microstep.errors import ConfigError
from microstep.evaluation.comparison.paired import Array, Folds, PairedPredictions, PairedScores
from microstep.evaluation.comparison.predictions_file import SavedScores
from microstep.evaluation.comparison.runs import ReportedRun
from microstep.run.saved_run import find_training_differences
from microstep.utils.text import display_path

log = logging.getLogger("microstep.notice")


@dataclass(frozen=True)
class RunGroup:
    """Runs of one experiment that differ only in seed and fold."""

    runs: tuple[ReportedRun, ...]  #: sorted by seed, repeat and fold

    @property
    def seeds(self) -> list[Any]:
        return [run.seed for run in self.runs]

    @property
    def directories(self) -> list[str]:
        return [display_path(run.directory) for run in self.runs]

    @property
    def first(self) -> ReportedRun:
        return self.runs[0]

    def select_seeds(self, seeds: Collection[Any]) -> "RunGroup":
        return RunGroup(tuple(run for run in self.runs if run.seed in seeds))

    @property
    def rows(self) -> dict[Any, list[ReportedRun]]:
        """Runs whose reports make up a row, by its seed: one, or the folds of the seed if each has other samples."""
        rows: dict[Any, list[ReportedRun]] = {}
        shared = all(np.array_equal(run.report.indices, self.first.report.indices) for run in self.runs)
        for run in self.runs:
            seed = run.seed if shared else run.format_seed(run.division.keys() - {"dataset.fold"})
            rows.setdefault(seed, []).append(run)
        return rows

    def stack_column(self, name: str) -> Array:
        """Return a column of the reports (S seeds × N samples)."""
        return self.stack(attrgetter(f"report.{name}"))

    def stack(self, get: Callable[[ReportedRun], Array]) -> Array:
        """Return what `get` returns for the samples of each run, in the order of the samples: S × N."""
        orders = [np.argsort(np.concatenate([run.report.indices for run in row])) for row in self.rows.values()]
        rows = [np.concatenate([get(run) for run in row]) for row in self.rows.values()]
        return np.stack([row[order] for row, order in zip(rows, orders, strict=True)])


@dataclass(frozen=True)
class GroupPair:
    """Two groups with the same seeds."""

    run: RunGroup
    baseline: RunGroup

    @property
    def training_differences(self) -> dict[str, str]:
        """Source and versions that differ between the runs of both groups."""
        return find_training_differences([run.saved for run in (*self.run.runs, *self.baseline.runs)])

    @property
    def folds(self) -> Folds | None:
        """Folds of the runs, in the order of their rows; None if there is one."""
        names = list(dict.fromkeys(str(run.division) for run in self.run.runs))
        numbers = self.run.stack(lambda run: np.full(len(run.report.indices), names.index(str(run.division))))
        pooled = len(numbers) < len(self.run.runs)
        overlap = float(np.mean([run.saved.record.fold_ratio for run in self.run.runs]))
        return Folds(numbers if pooled else numbers[:, :1], overlap) if len(names) > 1 else None

    @property
    def paired(self) -> PairedPredictions | PairedScores:
        report, folds = self.baseline.first.report, self.folds
        if isinstance(report, SavedScores):
            run, baseline = (group.stack_column("scores") for group in (self.run, self.baseline))
            return PairedScores(run, baseline, report.name, folds)
        run, baseline = (group.stack_column("predictions") for group in (self.run, self.baseline))
        labels = self.baseline.stack_column("labels")[0]
        return PairedPredictions(labels, run, baseline, len(report.class_names), folds)


def group_runs(runs: Sequence[ReportedRun], key: str) -> list[RunGroup]:
    """Return the groups of some runs, in the order of their first runs. Refuse two of a group with the same seed."""
    groups: dict[str, list[ReportedRun]] = {}
    for run in runs:
        groups.setdefault(json.dumps(run.settings, sort_keys=True, default=str), []).append(run)
    for group in groups.values():
        group.sort(key=attrgetter("order"))
        for one, other in pairwise(group):
            if one.seed == other.seed:
                reason = f"{other.directory} is the same experiment with the same seed={one.seed}"
                raise ConfigError(f"{key}={one.directory}", reason, "narrow the pattern")
    return [RunGroup(tuple(group)) for group in groups.values()]


def pair_by_seed(run: RunGroup, baseline: RunGroup) -> GroupPair:
    """Return two groups with their common seeds. Two single runs may differ in seed; others must have one in common."""
    directory = run.first.directory
    if len(run.runs) == len(baseline.runs) == 1 and run.first.division == baseline.first.division:
        if run.seeds != baseline.seeds:
            seeds = (*run.seeds, *baseline.seeds)
            log.warning("run=%s: its seed is %s, the baseline's %s: chance in training differs too", directory, *seeds)
        return GroupPair(run, baseline)
    common = {*run.seeds} & {*baseline.seeds}
    if not common:
        sides = f"its seeds {format_seed_list(run.seeds)} and the baseline's {format_seed_list(baseline.seeds)}"
        raise ConfigError(f"run={directory}", f"{sides} have none in common", propose_common_runs(run, baseline))
    runs = sorted((*run.runs, *baseline.runs), key=attrgetter("order"))
    if alone := [one.seed for one in runs if one.seed not in common]:
        left = format_seed_list(alone)
        log.warning("run=%s: seeds or folds that only one side has are left out: %s", directory, left)
    pair = GroupPair(run.select_seeds(common), baseline.select_seeds(common))
    check_folds(pair.run)
    return pair


def propose_common_runs(run: RunGroup, baseline: RunGroup) -> str:
    sides = [[one.division for one in group.runs] for group in (baseline, run)]
    if any(division in sides[1] for division in sides[0]):
        return "train both with the same seeds: -m seed=0,1,2"
    folds = next(filter(any, sides))
    keys = dict.fromkeys(chain(*chain(*sides)))
    words = (f"{key}={','.join(map(str, sorted({one.get(key, 0) for one in folds})))}" for key in keys)
    return f"train both on the same folds: -m {' '.join(words)}, with the same dataset.folds"


def check_folds(group: RunGroup) -> None:
    """Check that the folds of each seed and repeat have no sample twice, and all together the same samples."""
    samples = [np.sort(np.concatenate([run.report.indices for run in row])) for row in group.rows.values()]
    if any(len(np.unique(row)) < len(row) or not np.array_equal(row, samples[0]) for row in samples):
        reason = f"the folds of seeds {format_seed_list([*group.rows])} do not have the same samples, each once"
        raise ConfigError(f"run={group.first.directory}", reason, "train the folds that are missing, or use split=test")


def format_seed_list(seeds: Sequence[Any]) -> str:
    return ", ".join(map(str, seeds))
