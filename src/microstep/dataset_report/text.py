"""Formats a data set's statistics and health as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from microstep.components.dataset.images import ImageSource
from microstep.dataset_report.health import MIN_CLASS_SIZE, DuplicateGroup, HealthReport
from microstep.dataset_report.statistics import SplitStatistics
from microstep.utils.tables import format_table

MAX_LISTED_CLASSES = 30  #: lines of the table of classes


def format_statistics_rows(statistics: Mapping[str, SplitStatistics]) -> dict[str, str]:
    """Return a row a split for the terminal."""
    return {name: format_statistics_row(one) for name, one in statistics.items()}


def format_statistics_row(split_statistics: SplitStatistics) -> str:
    """Return a split's mean, deviation and range in one line, with standard errors where it was sampled."""
    found, errors = split_statistics.statistics, split_statistics.errors
    mean = format_with_errors(found.mean, errors.mean if errors else None)
    std = format_with_errors(found.std, errors.std if errors else None)
    whole = found.count == split_statistics.population
    of = f"{found.count:,}{'' if whole and errors is None else f' of {split_statistics.population:,}'} pictures"
    unreadable = f"{split_statistics.unreadable:,} unreadable" if split_statistics.unreadable else ""
    notes = filter(None, [of, "exact" if errors is None else "", unreadable])
    return (
        f"mean {mean}  std {std}  min {format_range_ends(found.minimum)}  max "
        f"{format_range_ends(found.maximum)}  ({', '.join(notes)})"
    )


def format_with_errors(values: Sequence[float], errors: Sequence[float] | None = None) -> str:
    """Return numbers, each with its standard error where there are errors."""
    if errors is None:
        return ", ".join(f"{value:.4f}" for value in values)
    return ", ".join(f"{value:.4f} ± {error:.4f}" for value, error in zip(values, errors, strict=True))


def format_range_ends(values: Sequence[float]) -> str:
    """Return the ends of ranges, once where they are the same in every channel."""
    return (
        ", ".join(dict.fromkeys(f"{value:.4g}" for value in values))
        if len(set(values)) == 1
        else format_with_errors(values)
    )


def format_yaml_snippet(statistics: Mapping[str, SplitStatistics]) -> str:
    """Return yaml to paste into the data set's config: the training split's, where it was measured."""
    found = find_main_split(statistics)[1].statistics
    return f"mean: [{format_with_errors(found.mean)}]\nstd: [{format_with_errors(found.std)}]"


def find_main_split(statistics: Mapping[str, SplitStatistics]) -> tuple[str, SplitStatistics]:
    """Return the split that matters most: the training split, else the first."""
    name = "train" if "train" in statistics else next(iter(statistics))
    return name, statistics[name]


def format_class_table(statistics: Mapping[str, SplitStatistics], official_splits: Mapping[str, ImageSource]) -> str:
    """Return how many pictures each split has of each class, as published, and the mean of those measured."""
    name, one = find_main_split(statistics)
    counts = [np.bincount(pictures.labels, minlength=len(one.class_names)) for pictures in official_splits.values()]
    lines = [["classes", *official_splits, f"mean ({name})"]]
    for label, mean in enumerate(one.classes.means):
        cells = [f"{count[label]:,}" for count in counts]
        lines.append([one.class_names[label], *cells, format_with_errors(mean) if mean else "–"])
    table = format_table(lines[: MAX_LISTED_CLASSES + 1], f"<{'>' * len(official_splits)}<")
    return "\n".join([*table, *format_omitted_line(len(lines) - 1 - MAX_LISTED_CLASSES, "  ")])


def format_image_sizes(sizes: Counter[tuple[int, int]]) -> str:
    """Return the sizes in which pictures were published, width × height, in one line."""
    if len(sizes) < 2:
        return "".join(f"all {w} × {h}" for w, h in sizes) or "unknown"
    ordered = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    (least_w, least_h), (most_w, most_h) = ordered[0], ordered[-1]
    common = ", ".join(f"{w} × {h} ({count:,})" for (w, h), count in sizes.most_common(3))
    return f"{least_w} × {least_h} to {most_w} × {most_h}, {len(sizes):,} different; most often {common}"


def format_omitted_line(count: int, indent: str) -> list[str]:
    """Return a line for what is left out."""
    return [f"{indent}… and {count:,} more, all in the JSON"] if count > 0 else []


MAX_LISTED_LINES = 10  #: lines of a list, beyond which the rest is counted


def format_health(health: HealthReport, options: Sequence[str]) -> str:
    """Return what is wrong, and what is not, with lists cut short.

    Args:
        options: the official splits that there are.
    """
    looked = ", ".join(
        f"{split}{'' if n == of else f': {n:,} of {of:,} pictures'}" for split, (n, of) in health.checked.items()
    )
    lines = [f"  health of {looked}"]
    for kind, listed in format_problems(health).items():
        lines += [
            f"    {kind}",
            *(f"      {one}" for one in listed[:MAX_LISTED_LINES]),
            *format_omitted_line(len(listed) - MAX_LISTED_LINES, "      "),
        ]
    if well := format_passed_checks(health):
        lines.append(f"    no {', no '.join(well)}")
    return "\n".join([*lines, *(f"    {advice}" for advice in format_advice(health, options))])


def format_problems(health: HealthReport) -> dict[str, list[str]]:
    """Return what was found, kind by kind."""
    kinds = {
        f"unreadable: {len(health.unreadable):,}": list(map(str, health.unreadable)),
        format_duplicates_heading(health): [
            format_duplicate_group(one) for one in sorted(health.duplicates, key=lambda one: not one.leak)
        ],
        f"pictures of one colour: {len(health.constant):,}": list(map(str, health.constant)),
        f"classes with fewer than {MIN_CLASS_SIZE} training pictures: {len(health.few):,}": [
            f"{name}: {count}" for name, count in health.few.items()
        ],
    }
    for split, names in health.absent.items():
        kinds[f"classes absent in {split}: {len(names):,}"] = list(names)
    return {kind: listed for kind, listed in kinds.items() if listed}


def format_duplicate_group(group: DuplicateGroup) -> str:
    """Return duplicates in one line, with their labels where these differ."""
    names = [str(member) for member in group.members[:MAX_LISTED_LINES]]
    more = [f"{len(group.members) - MAX_LISTED_LINES:,} more"] if len(group.members) > MAX_LISTED_LINES else []
    labels = ", ".join(dict.fromkeys(member.label for member in group.members))
    return " = ".join([*names, *more]) + (f" (labels differ: {labels})" if group.conflicting else "")


def format_duplicates_heading(health: HealthReport) -> str:
    """Return how many groups of duplicates there are, of which kind."""
    groups = health.groups()
    kinds = [f"{count:,} within {split}" for split, count in groups["within"].items() if count]
    kinds += [f"{groups['across']:,} across splits, which are leaks"] if groups["across"] else []
    kinds += [f"{groups['conflicting']:,} with different labels"] if groups["conflicting"] else []
    return f"groups of duplicates, the same pixels at this size: {len(health.duplicates):,} ({', '.join(kinds)})"


def format_passed_checks(health: HealthReport) -> list[str]:
    """Return what there is nothing of."""
    kinds = {
        "unreadable files": health.unreadable,
        "duplicates": health.duplicates,
        "pictures of one colour": health.constant,
        f"class with fewer than {MIN_CLASS_SIZE} training pictures": health.few or health.absent.get("train"),
    }
    return [kind for kind, found in kinds.items() if not found]


def format_advice(health: HealthReport, options: Sequence[str]) -> list[str]:
    """Return what to add to see more."""
    found = [] if health.whole else ["only the pictures drawn were looked at: leave ratio out for all of them"]
    if len(health.checked) < len(options):
        found.append(f"to find leaks between splits: split={','.join(options)}")
    return found
