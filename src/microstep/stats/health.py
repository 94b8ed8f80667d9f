"""What is wrong with a data set: bad files, duplicates and leaks, empty pictures, classes that are too small."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from microstep.components.dataset.images import Pictures
from microstep.stats.duplicates import Duplicates, Member, duplicates, member
from microstep.stats.survey import Survey, printable

FEW = 10  #: training pictures that a class should have at least


@dataclass(frozen=True)
class Unreadable(Member):
    """A picture that can't be read."""

    reason: str

    def __str__(self) -> str:
        return f"{self.split}: {self.name}: {self.reason}"


@dataclass(frozen=True)
class Health:
    """What one look at some splits has found wrong."""

    checked: Mapping[str, tuple[int, int]]  #: split → pictures looked at, out of how many
    unreadable: Sequence[Unreadable]
    duplicates: Sequence[Duplicates]
    constant: Sequence[Member]  #: pictures of one colour
    few: Mapping[str, int]  #: class → training pictures, of those with fewer than FEW
    absent: Mapping[str, Sequence[str]]  #: split → classes that it has no picture of

    @classmethod
    def of(cls, surveys: Sequence[Survey], official: Mapping[str, Pictures]) -> Health:
        """Return what is wrong with the splits surveyed; classes are counted in all `official` ones."""
        unreadable = [
            Unreadable(**vars(member(survey, row)), reason=reason)
            for survey in surveys
            for row, reason in survey.unreadable.items()
        ]
        constant = [member(survey, row) for survey in surveys for row in survey.marks.rows[survey.marks.constant]]
        counts = {name: class_sizes(pictures, surveys, name) for name, pictures in official.items()}
        few = {name: count for name, count in counts.get("train", {}).items() if 0 < count < FEW}
        absent = {split: [name for name, count in sizes.items() if not count] for split, sizes in counts.items()}
        checked = {one.split: (one.tally.count + len(one.unreadable), len(one.pictures)) for one in surveys}
        found = list(duplicates(surveys))
        return cls(
            checked, unreadable, found, constant, few, {split: names for split, names in absent.items() if names}
        )

    @property
    def whole(self) -> bool:
        """Whether all pictures of these splits were looked at."""
        return all(looked == population for looked, population in self.checked.values())

    def groups(self) -> dict[str, Any]:
        """Return how many groups of duplicates there are, of which kind."""
        within = Counter(chain.from_iterable(one.within for one in self.duplicates))
        return {
            "within": {split: within[split] for split in self.checked},
            "across": sum(one.leak for one in self.duplicates),
            "conflicting": sum(one.conflicting for one in self.duplicates),
        }

    def plain(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "checked": {split: {"count": n, "population": of} for split, (n, of) in self.checked.items()},
            "unreadable": [vars(one) for one in self.unreadable],
            "duplicate_groups": self.groups(),
            "duplicates": [one.plain() for one in self.duplicates],
            "constant": [vars(one) for one in self.constant],
            "few": dict(self.few),
            "absent": dict(self.absent),
        }


def class_sizes(pictures: Pictures, surveys: Sequence[Survey], split: str) -> dict[str, int]:
    """Return how many pictures of a split each class has, without those that are known to be unreadable."""
    bad = [row for survey in surveys if survey.split == split for row in survey.unreadable]
    classes = len(pictures.class_names)
    counts = np.bincount(pictures.labels, minlength=classes) - np.bincount(pictures.labels[bad], minlength=classes)
    return dict(zip(map(printable, pictures.class_names), counts.tolist(), strict=True))
