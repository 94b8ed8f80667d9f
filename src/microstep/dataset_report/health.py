"""Finds damaged, duplicate and mislabeled images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np

from microstep.components.dataset.images import ImageSource
from microstep.dataset_report.survey import SplitSurvey, make_printable


@dataclass(frozen=True)
class ImageReference:
    """A picture, as a report names it."""

    split: str
    name: str
    label: str  #: its class

    def __str__(self) -> str:
        return f"{self.split}: {self.name}"


def make_image_reference(split_survey: SplitSurvey, row: int) -> ImageReference:
    """Return a picture by its row."""
    label = split_survey.pictures.class_names[split_survey.pictures.labels[row]]
    return ImageReference(split_survey.split, split_survey.name(row), make_printable(label))


@dataclass(frozen=True)
class DuplicateGroup:
    """Two or more pictures with the same pixels, in the size in which a model sees them."""

    members: Sequence[ImageReference]

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


def find_duplicates(surveys: Sequence[SplitSurvey]) -> Iterator[DuplicateGroup]:
    """Yield the groups of pictures with the same pixels, by their first picture."""
    digests = np.concatenate([survey.marks.digests for survey in surveys])
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: of equal ones the first comes first
    same = (digests[order[1:]] == digests[order[:-1]]).all(1)
    repeated, first = np.r_[same, False] | np.r_[False, same], np.r_[True, ~same][: len(order)]
    groups = np.split(order[repeated], np.flatnonzero(first[repeated])[1:]) if repeated.any() else []
    owners = np.repeat(np.arange(len(surveys)), [len(survey.marks.rows) for survey in surveys])
    rows = np.concatenate([survey.marks.rows for survey in surveys])
    for group in sorted(groups, key=lambda group: int(group[0])):
        yield DuplicateGroup([make_image_reference(surveys[owners[place]], rows[place]) for place in group])


MIN_CLASS_SIZE = 10  #: training pictures that a class should have at least


@dataclass(frozen=True)
class UnreadableImage(ImageReference):
    """A picture that can't be read."""

    reason: str

    def __str__(self) -> str:
        return f"{self.split}: {self.name}: {self.reason}"


@dataclass(frozen=True)
class HealthReport:
    """What one look at some splits has found wrong."""

    checked: Mapping[str, tuple[int, int]]  #: split → pictures looked at, out of how many
    unreadable: Sequence[UnreadableImage]
    duplicates: Sequence[DuplicateGroup]
    constant: Sequence[ImageReference]  #: pictures of one colour
    few: Mapping[str, int]  #: class → training pictures, of those with fewer than FEW
    absent: Mapping[str, Sequence[str]]  #: split → classes that it has no picture of

    @classmethod
    def of(cls, surveys: Sequence[SplitSurvey], official_splits: Mapping[str, ImageSource]) -> HealthReport:
        """Return what is wrong with the splits surveyed; classes are counted in all `official_splits` ones."""
        unreadable = [
            UnreadableImage(**vars(make_image_reference(survey, row)), reason=reason)
            for survey in surveys
            for row, reason in survey.unreadable.items()
        ]
        constant = [
            make_image_reference(survey, row) for survey in surveys for row in survey.marks.rows[survey.marks.constant]
        ]
        counts = {name: count_readable_images(pictures, surveys, name) for name, pictures in official_splits.items()}
        few = {name: count for name, count in counts.get("train", {}).items() if 0 < count < MIN_CLASS_SIZE}
        absent = {split: [name for name, count in sizes.items() if not count] for split, sizes in counts.items()}
        checked = {one.split: (one.tally.count + len(one.unreadable), len(one.pictures)) for one in surveys}
        found = list(find_duplicates(surveys))
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


def count_readable_images(source: ImageSource, surveys: Sequence[SplitSurvey], split: str) -> dict[str, int]:
    """Return how many pictures of a split each class has, without those that are known to be unreadable."""
    bad = [row for survey in surveys if survey.split == split for row in survey.unreadable]
    classes = len(source.class_names)
    counts = np.bincount(source.labels, minlength=classes) - np.bincount(source.labels[bad], minlength=classes)
    return dict(zip(map(make_printable, source.class_names), counts.tolist(), strict=True))
