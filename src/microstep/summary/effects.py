"""Compute the main effect of each swept key over runs that are matched in all other keys."""

from __future__ import annotations

from dataclasses import dataclass

from microstep.summary.study import Sample, SweepTable


@dataclass(frozen=True)
class Effect:
    """A key's main effect on the monitored validation metric."""

    key: str
    levels: tuple[str, ...]  #: the key's values that have finished runs
    matches: tuple[tuple[float, ...], ...]  #: a row for each combination of the other keys: the metric at each level
    finished: int  #: number of finished runs; the effect uses `used` of them
    absent: tuple[str, ...]  #: the key's values without a finished run

    @property
    def used(self) -> int:
        """Number of runs in the means."""
        return len(self.matches) * len(self.levels)

    def at(self, index: int) -> Sample:
        """Return the metric at a level, over the matches."""
        return Sample(tuple(match[index] for match in self.matches))

    def difference(self, index: int) -> Sample:
        """Return the differences between a level and the first, over the matches."""
        return Sample(tuple(match[index] - match[0] for match in self.matches))


def main_effects(sweep: SweepTable) -> tuple[Effect, ...]:
    """Return the effect of each swept key, in the order of the keys."""
    return tuple(main_effect(sweep, key) for key in sweep.keys)


def main_effect(sweep: SweepTable, key: str) -> Effect:
    """Return a key's effect over the complete part of the grid.

    Only combinations of the other keys count that have a finished run at every value of this one. Otherwise the means
    would differ in the other keys as well.
    """
    scores: dict[tuple[str, ...], dict[str, float]] = {}
    for run in sweep.scored:
        scores.setdefault(sweep.others(run, key), {})[sweep.rows[run.name][key]] = sweep.score(run)
    reached = {level for found in scores.values() for level in found}
    levels = tuple(level for level in sweep.levels(key) if level in reached)
    matches = tuple(tuple(found[level] for level in levels) for found in scores.values() if len(found) == len(levels))
    absent = tuple(level for level in sweep.levels(key) if level not in reached)
    return Effect(key, levels, matches if len(levels) > 1 else (), len(sweep.scored), absent)
