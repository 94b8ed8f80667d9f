"""Exact duplicates: pictures with the same pixels, in the size in which a model sees them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from microstep.stats.survey import Survey, printable


@dataclass(frozen=True)
class Member:
    """A picture, as a report names it."""

    split: str
    name: str
    label: str  #: its class

    def __str__(self) -> str:
        return f"{self.split}: {self.name}"


def member(survey: Survey, row: int) -> Member:
    """Return a picture by its row."""
    label = survey.pictures.class_names[survey.pictures.labels[row]]
    return Member(survey.split, survey.name(row), printable(label))


@dataclass(frozen=True)
class Duplicates:
    """Two or more pictures with the same pixels, in the size in which a model sees them."""

    members: Sequence[Member]

    @cached_property
    def leak(self) -> bool:
        """Whether they are in different splits."""
        return len({member.split for member in self.members}) > 1

    @cached_property
    def conflicting(self) -> bool:
        """Whether they bear different labels."""
        return len({member.label for member in self.members}) > 1

    @property
    def within(self) -> list[str]:
        """Return the splits that hold two of them."""
        return [split for split, times in Counter(member.split for member in self.members).items() if times > 1]

    def plain(self) -> dict[str, Any]:
        """Return them for JSON."""
        return {"pictures": [vars(one) for one in self.members], "leak": self.leak, "conflicting": self.conflicting}


def duplicates(surveys: Sequence[Survey]) -> Iterator[Duplicates]:
    """Yield the groups of pictures with the same pixels, by their first picture."""
    digests = np.concatenate([survey.marks.digests for survey in surveys])
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: of equal ones the first comes first
    same = (digests[order[1:]] == digests[order[:-1]]).all(1)
    repeated, first = np.r_[same, False] | np.r_[False, same], np.r_[True, ~same][: len(order)]
    groups = np.split(order[repeated], np.flatnonzero(first[repeated])[1:]) if repeated.any() else []
    owners = np.repeat(np.arange(len(surveys)), [len(survey.marks.rows) for survey in surveys])
    rows = np.concatenate([survey.marks.rows for survey in surveys])
    for group in sorted(groups, key=lambda group: int(group[0])):
        yield Duplicates([member(surveys[owners[place]], rows[place]) for place in group])
