"""The figures, as compute_stats.py prints them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from microstep.components.dataset.images import Pictures
from microstep.measure import Measured
from microstep.utils.tables import format_table

CLASSES = 30  #: lines of the table of classes


def rows(measured: Mapping[str, Measured]) -> dict[str, str]:
    """Return a row a split for the terminal."""
    return {name: row(one) for name, one in measured.items()}


def row(one: Measured) -> str:
    """Return a split's mean, deviation and range in one line, with standard errors where it was sampled."""
    found, errors = one.statistics, one.errors
    mean = numbers(found.mean, errors.mean if errors else None)
    std = numbers(found.std, errors.std if errors else None)
    whole = found.count == one.population
    of = f"{found.count:,}{'' if whole and errors is None else f' of {one.population:,}'} pictures"
    unreadable = f"{one.unreadable:,} unreadable" if one.unreadable else ""
    notes = filter(None, [of, "exact" if errors is None else "", unreadable])
    return f"mean {mean}  std {std}  min {least(found.minimum)}  max {least(found.maximum)}  ({', '.join(notes)})"


def numbers(values: Sequence[float], errors: Sequence[float] | None = None) -> str:
    """Return numbers, each with its standard error where there are errors."""
    if errors is None:
        return ", ".join(f"{value:.4f}" for value in values)
    return ", ".join(f"{value:.4f} ± {error:.4f}" for value, error in zip(values, errors, strict=True))


def least(values: Sequence[float]) -> str:
    """Return the ends of ranges, once where they are the same in every channel."""
    return ", ".join(dict.fromkeys(f"{value:.4g}" for value in values)) if len(set(values)) == 1 else numbers(values)


def snippet(measured: Mapping[str, Measured]) -> str:
    """Return yaml to paste into the data set's config: the training split's, where it was measured."""
    found = chief(measured)[1].statistics
    return f"mean: [{numbers(found.mean)}]\nstd: [{numbers(found.std)}]"


def chief(measured: Mapping[str, Measured]) -> tuple[str, Measured]:
    """Return the split that matters most: the training split, else the first."""
    name = "train" if "train" in measured else next(iter(measured))
    return name, measured[name]


def class_table(measured: Mapping[str, Measured], official: Mapping[str, Pictures]) -> str:
    """Return how many pictures each split has of each class, as published, and the mean of those measured."""
    name, one = chief(measured)
    counts = [np.bincount(pictures.labels, minlength=len(one.class_names)) for pictures in official.values()]
    lines = [["classes", *official, f"mean ({name})"]]
    for label, mean in enumerate(one.classes.means):
        cells = [f"{count[label]:,}" for count in counts]
        lines.append([one.class_names[label], *cells, numbers(mean) if mean else "–"])
    table = format_table(lines[: CLASSES + 1], f"<{'>' * len(official)}<")
    return "\n".join([*table, *rest(len(lines) - 1 - CLASSES, "  ")])


def sizes_row(sizes: Counter[tuple[int, int]]) -> str:
    """Return the sizes in which pictures were published, width × height, in one line."""
    if len(sizes) < 2:
        return "".join(f"all {w} × {h}" for w, h in sizes) or "unknown"
    ordered = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    (least_w, least_h), (most_w, most_h) = ordered[0], ordered[-1]
    common = ", ".join(f"{w} × {h} ({count:,})" for (w, h), count in sizes.most_common(3))
    return f"{least_w} × {least_h} to {most_w} × {most_h}, {len(sizes):,} different; most often {common}"


def rest(count: int, indent: str) -> list[str]:
    """Return a line for what is left out."""
    return [f"{indent}… and {count:,} more, all in the JSON"] if count > 0 else []
