"""Main effects of the swept keys, and settings that are confounded with the batch size."""

import math
import shlex
from dataclasses import dataclass

from microstep.config.names import MAX_NAME_LENGTH
from microstep.sweep.summary.study import Sample, SweepTable

REPLACED_KEYS = ("batch_size", "effective_batch_size", "sweep", "hydra.sweep.dir", "resume")
MAX_ACCUM = 10**6  #: no command is made for a larger `accum`


@dataclass(frozen=True)
class AccumConfounding:
    """Effective batch sizes that `accum` has changed."""

    sizes: tuple[int, ...]
    command: str  #: the sweep with one effective batch size; empty if it cannot be made


def find_accum_confounding(sweep: SweepTable) -> AccumConfounding | None:
    """Return the batch sizes of runs that differ in `accum` alone; None if they have the same."""
    if "accum" not in sweep.keys:
        return None
    groups: dict[tuple[str, ...], set[int]] = {}
    for run in sweep.runs:
        if (size := run.record.numbers.get("effective_batch_size")) is not None and size >= 1:
            groups.setdefault(sweep.other_values(run, "accum"), set()).add(int(size))
    sizes = sorted({size for group in groups.values() if len(group) > 1 for size in group})
    return AccumConfounding(tuple(sizes), make_separating_command(sweep, sizes[0])) if sizes else None


def make_separating_command(sweep: SweepTable, minimum: int) -> str:
    """Return the sweep's command with the smallest effective batch size ≥ `minimum` that each `accum` divides."""
    levels = sweep.levels("accum")
    values = [int(level) for level in levels if level.isdecimal() and 0 < int(level) <= MAX_ACCUM]
    try:
        words = shlex.split(sweep.command)
    except ValueError:
        return ""
    if len(values) < len(levels) or not words:
        return ""
    multiple = math.lcm(*values)
    size, name = -(-minimum // multiple) * multiple, f"{sweep.name[: MAX_NAME_LENGTH - 11]}_same_batch"
    kept = [word for word in words if word.lstrip("+").partition("=")[0] not in REPLACED_KEYS]
    return shlex.join([*kept, f"effective_batch_size={size}", f"sweep={name}"])


@dataclass(frozen=True)
class MainEffect:
    """A key's main effect on the monitored validation metric."""

    key: str
    levels: tuple[str, ...]  #: the key's values that have finished runs
    matches: tuple[tuple[float, ...], ...]  #: a row for each combination of the other keys: the metric at each level
    num_finished: int  #: number of finished runs; the effect is over `num_used` of them
    absent: tuple[str, ...]  #: the key's values without a finished run

    @property
    def num_used(self) -> int:
        return len(self.matches) * len(self.levels)

    def sample_at(self, index: int) -> Sample:
        return Sample(tuple(match[index] for match in self.matches))

    def difference_at(self, index: int) -> Sample:
        return Sample(tuple(match[index] - match[0] for match in self.matches))


def compute_main_effects(sweep: SweepTable) -> tuple[MainEffect, ...]:
    return tuple(compute_main_effect(sweep, key) for key in sweep.keys)


def compute_main_effect(sweep: SweepTable, key: str) -> MainEffect:
    """Return a key's effect over the complete part of the grid.

    Only combinations of the other keys count that have a finished run at every value of this one. Otherwise the means
    would differ in the other keys as well.
    """
    scores: dict[tuple[str, ...], dict[str, float]] = {}
    for run in sweep.scored_runs:
        scores.setdefault(sweep.other_values(run, key), {})[sweep.rows[run.name][key]] = sweep.get_score(run)
    reached = {level for row in scores.values() for level in row}
    levels = tuple(level for level in sweep.levels(key) if level in reached)
    absent = tuple(level for level in sweep.levels(key) if level not in reached)
    matches = tuple(tuple(row[level] for level in levels) for row in scores.values() if len(row) == len(levels))
    return MainEffect(key, levels, matches if len(levels) > 1 else (), len(sweep.scored_runs), absent)
