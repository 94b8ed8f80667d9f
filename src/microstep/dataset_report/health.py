"""Finds damaged, duplicate and mislabeled images."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np

from microstep.components.dataset.cropping import LARGE_CUT, compute_cut_shares
from microstep.components.dataset.images import ImageSource
from microstep.dataset_report.sampling import count_labels, list_memberships
from microstep.dataset_report.survey import SplitSurvey
from microstep.errors import escape_unprintable


@dataclass(frozen=True)
class ImageReference:
    """The name of an image in a report."""

    split: str
    name: str
    label: str  #: class name

    def __str__(self) -> str:
        return f"{self.split}: {self.name}"


def make_image_reference(split_survey: SplitSurvey, row: int) -> ImageReference:
    source = split_survey.source
    name, classes = source.get_name(row), list_memberships(source.labels[[row]])[1]
    label = "|".join(source.class_names[one] for one in classes)
    return ImageReference(split_survey.split, escape_unprintable(name), escape_unprintable(label))


@dataclass(frozen=True)
class DuplicateGroup:
    """Two or more images with the same pixels, at the size that a model gets."""

    members: Sequence[ImageReference]

    @cached_property
    def is_leak(self) -> bool:
        return len({member.split for member in self.members}) > 1

    @cached_property
    def is_conflicting(self) -> bool:
        return len({member.label for member in self.members}) > 1

    @property
    def repeated_splits(self) -> list[str]:
        return [split for split, times in Counter(member.split for member in self.members).items() if times > 1]

    def to_dict(self) -> dict[str, Any]:
        members = [vars(one) for one in self.members]
        return {"pictures": members, "leak": self.is_leak, "conflicting": self.is_conflicting}


def find_duplicates(surveys: Sequence[SplitSurvey]) -> Iterator[DuplicateGroup]:
    """Yield the groups of images with the same pixels, in the order of their first images."""
    digests = np.concatenate([survey.facts.digests for survey in surveys])
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: keeps the order of equal digests
    same = (digests[order[1:]] == digests[order[:-1]]).all(1)
    repeated, first = np.r_[same, False] | np.r_[False, same], np.r_[True, ~same][: len(order)]
    groups = np.split(order[repeated], np.flatnonzero(first[repeated])[1:]) if repeated.any() else []
    owners = np.repeat(np.arange(len(surveys)), [len(survey.facts.rows) for survey in surveys])
    rows = np.concatenate([survey.facts.rows for survey in surveys])
    for group in sorted(groups, key=lambda group: int(group[0])):
        yield DuplicateGroup([make_image_reference(surveys[owners[index]], rows[index]) for index in group])


MAX_CROPPED = 10  #: images that are listed
MIN_CLASS_SIZE = 10  #: training images that a class should have


@dataclass(frozen=True)
class ImageProblem(ImageReference):
    """An image and what is wrong with it."""

    reason: str

    def __str__(self) -> str:
        return f"{self.split}: {self.name}: {self.reason}"


def make_image_problem(survey: SplitSurvey, row: int, reason: str) -> ImageProblem:
    return ImageProblem(**vars(make_image_reference(survey, row)), reason=reason)


def find_worst_crops(surveys: Sequence[SplitSurvey]) -> list[ImageProblem]:
    """Return the images that a crop cuts most, at most MAX_CROPPED."""
    crops = []
    for survey in surveys:
        rows, sizes = survey.facts.rows, survey.facts.sizes
        cuts = zip(compute_cut_shares(survey.source, sizes), rows, sizes, strict=True)
        crops += [(cut, survey, row, size) for cut, row, size in cuts if cut >= LARGE_CUT]
    worst = sorted(crops, key=lambda crop: -crop[0])[:MAX_CROPPED]
    return [
        make_image_problem(survey, row, f"{width:,} × {height:,}, {100 * cut:.0f} % cut off")
        for cut, survey, row, (width, height) in worst
    ]


@dataclass(frozen=True)
class HealthReport:
    """Problems found in the images of some splits."""

    checked: Mapping[str, tuple[int, int]]  #: split → number of images checked, number of images
    unreadable: Sequence[ImageProblem]
    duplicates: Sequence[DuplicateGroup]
    constant_images: Sequence[ImageReference]  #: images of one color
    small_classes: Mapping[str, int]  #: class → training images, if fewer than MIN_CLASS_SIZE
    absent_classes: Mapping[str, Sequence[str]]  #: split → classes without images
    cropped: Sequence[ImageProblem] = ()  #: those of which most is cut off

    @classmethod
    def from_surveys(cls, surveys: Sequence[SplitSurvey], official_splits: Mapping[str, ImageSource]) -> "HealthReport":
        """Return the problems of the surveyed splits. Classes are counted in all official splits."""
        unreadable = [make_image_problem(one, *bad) for one in surveys for bad in one.unreadable.items()]
        constant = [make_image_reference(one, row) for one in surveys for row in one.facts.rows[one.facts.constant]]
        counts = {name: count_readable_images(source, surveys, name) for name, source in official_splits.items()}
        small = {name: count for name, count in counts.get("train", {}).items() if 0 < count < MIN_CLASS_SIZE}
        absent = {split: [name for name, count in sizes.items() if not count] for split, sizes in counts.items()}
        absent = {split: names for split, names in absent.items() if names}
        checked = {one.split: (one.totals.count + len(one.unreadable), len(one.source)) for one in surveys}
        duplicates, cropped = list(find_duplicates(surveys)), find_worst_crops(surveys)
        return cls(checked, unreadable, duplicates, constant, small, absent, cropped)

    def count_groups(self) -> dict[str, Any]:
        """Return the number of groups of duplicates within each split, across splits, and with different labels."""
        within = Counter(chain.from_iterable(one.repeated_splits for one in self.duplicates))
        return {
            "within": {split: within[split] for split in self.checked},
            "across": sum(one.is_leak for one in self.duplicates),
            "conflicting": sum(one.is_conflicting for one in self.duplicates),
        }

    def to_dict(self) -> dict[str, Any]:
        return {
            "checked": {split: {"count": n, "population": of} for split, (n, of) in self.checked.items()},
            "unreadable": [vars(one) for one in self.unreadable],
            "duplicate_groups": self.count_groups(),
            "duplicates": [one.to_dict() for one in self.duplicates],
            "constant": [vars(one) for one in self.constant_images],
            "few": dict(self.small_classes),
            "absent": dict(self.absent_classes),
            "cropped": [vars(one) for one in self.cropped],
        }


def count_readable_images(source: ImageSource, surveys: Sequence[SplitSurvey], split: str) -> dict[str, int]:
    bad = [row for survey in surveys if survey.split == split for row in survey.unreadable]
    readable = np.delete(source.labels, bad, axis=0)
    counts = count_labels(readable, len(readable), len(source.class_names))
    return dict(zip(map(escape_unprintable, source.class_names), counts.tolist(), strict=True))
