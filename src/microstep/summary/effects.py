"""What a swept key alone did: means over runs that are matched in everything else."""

from __future__ import annotations

from dataclasses import dataclass

from microstep.summary.study import Sample, Study


@dataclass(frozen=True)
class Effect:
    """A key's main effect on the monitored validation metric."""

    key: str
    levels: tuple[str, ...]  #: the key's values that have finished runs
    matches: tuple[tuple[float, ...], ...]  #: a row a combination of the other keys: the metric at each level
    finished: int  #: runs there are; the effect uses `used` of them
    absent: tuple[str, ...]  #: the key's values without a finished run

    @property
    def used(self) -> int:
        """Runs that the means are made of."""
        return len(self.matches) * len(self.levels)

    def at(self, place: int) -> Sample:
        """Return the metric at a level, over the matches."""
        return Sample(tuple(match[place] for match in self.matches))

    def difference(self, place: int) -> Sample:
        """Return by how much a level differs from the first, match by match."""
        return Sample(tuple(match[place] - match[0] for match in self.matches))


def main_effects(study: Study) -> tuple[Effect, ...]:
    """Return each swept key's effect, the seed's last."""
    return tuple(main_effect(study, key) for key in study.keys)


def main_effect(study: Study, key: str) -> Effect:
    """Return a key's effect over the complete part of the grid.

    Only combinations of the other keys count that have a finished run at every value of this one: means over unequal
    companies would credit the key with what its companions did.
    """
    place = study.keys.index(key)
    found: dict[tuple[str, ...], dict[str, float]] = {}
    for run in study.scored:
        found.setdefault(study.others(run, key), {})[study.rows[run.name][place]] = study.score(run)
    there = {level for scores in found.values() for level in scores}
    levels = tuple(level for level in study.levels(key) if level in there)
    matches = tuple(tuple(scores[level] for level in levels) for scores in found.values() if len(scores) == len(levels))
    absent = tuple(level for level in study.levels(key) if level not in there)
    return Effect(key, levels, matches if len(levels) > 1 else (), len(study.scored), absent)
