"""Statistics of a data set's official splits, exact or of a sample, for compute_stats.py."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from microstep.dataset import ResidentDataset, ResidentSplit
from microstep.errors import ConfigError
from microstep.statistics import CHUNK, ChannelStatistics, StandardErrors

OFFICIAL = {"train": ("train", "val"), "test": ("test",)}  #: validation is carved from the official training split
Bar = Callable[[Iterable[np.ndarray], str, int], Iterator[np.ndarray]]


@dataclass(frozen=True)
class Measured:
    """A split's statistics; `errors` where they are a sample's."""

    statistics: ChannelStatistics
    errors: StandardErrors | None
    population: int

    def plain(self) -> dict[str, Any]:
        """Return them for JSON."""
        found = self.statistics
        plain: dict[str, Any] = {
            "mean": found.mean,
            "std": found.std,
            "count": found.count,
            "population": self.population,
        }
        if self.errors is None:
            return plain
        return plain | {"mean_standard_error": self.errors.mean, "std_standard_error": self.errors.std}


def measure(
    dataset: ResidentDataset, names: Sequence[str], ratio: float | None, seed: int, bar: Bar
) -> dict[str, Measured]:
    """Return the statistics of each official split named; of several, also those of all their pictures together.

    Args:
        names: out of `train` and `test`.
        ratio: the share of pictures to draw, without replacement; None for all of them, exactly.
        seed: of the draw.
        bar: wraps a stream of arrays of so many pictures.

    Raises:
        ConfigError: for another split, or a sample of fewer than two pictures.
    """
    for name in names:
        if name not in OFFICIAL:
            raise ConfigError(
                f"split={name}", "no official split", f"the options are {', '.join(OFFICIAL)}, or both: train,test"
            )
    if len(set(names)) < len(names):
        raise ConfigError(f"split={','.join(names)}", "a split is named twice", "name each once")
    groups = {name: [name] for name in names} | ({"+".join(names): list(names)} if len(names) > 1 else {})
    return {label: measure_one(dataset, group, label, ratio, seed, bar) for label, group in groups.items()}


def measure_one(
    dataset: ResidentDataset, names: Sequence[str], label: str, ratio: float | None, seed: int, bar: Bar
) -> Measured:
    """Return the statistics of the union of some official splits."""
    splits = [part for name in names for part in parts_of(dataset, name)]
    population = sum(map(len, splits))
    scale = splits[0].scale
    if ratio is None:
        exact = ChannelStatistics.streamed(bar(streamed(splits), label, population), scale)
        return Measured(exact, None, population)
    count = ceil(ratio * population)
    if count < 2:
        raise ConfigError(f"ratio={ratio}", f"that is {count} of {population} pictures", "draw at least two")
    drawn = np.sort(np.random.default_rng(seed).choice(population, count, replace=False))
    statistics = ChannelStatistics.streamed(bar(streamed(splits, drawn), label, count), scale)
    errors = StandardErrors.of(streamed(splits, drawn), scale, statistics, population)
    return Measured(statistics, errors, population)


def parts_of(dataset: ResidentDataset, name: str) -> list[ResidentSplit]:
    """Return the splits that make up an official one."""
    return [split for part in OFFICIAL[name] if isinstance(split := dataset.splits[part], ResidentSplit)]


def streamed(splits: Sequence[ResidentSplit], drawn: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Yield the pictures of several splits, or those drawn, counted through all of them, a chunk at a time."""
    starts = np.cumsum([0, *map(len, splits)])
    rows = (
        np.arange(len(split)) if drawn is None else drawn[(drawn >= start) & (drawn < start + len(split))] - start
        for split, start in zip(splits, starts[:-1], strict=True)
    )
    return chain.from_iterable(
        (split.pixels(chosen[at : at + CHUNK].tolist()).numpy() for at in range(0, len(chosen), CHUNK))
        for split, chosen in zip(splits, rows, strict=True)
    )


def snippet(measured: Mapping[str, Measured]) -> str:
    """Return yaml to paste into the data set's config: the training split's, where it was measured."""
    name = "train" if "train" in measured else next(iter(measured))
    found = measured[name].statistics
    mean, std = (", ".join(f"{value:.4f}" for value in values) for values in (found.mean, found.std))
    return f"mean: [{mean}]\nstd: [{std}]"


def plain(measured: Mapping[str, Measured], ratio: float | None, seed: int) -> dict[str, Any]:
    """Return the statistics for JSON; a sample's are named after the draw, so that they never replace exact ones."""
    draw = "" if ratio is None else f" ratio={ratio} seed={seed}"
    return {f"{name}{draw}": one.plain() for name, one in measured.items()}


def known(file: Path) -> dict[str, Any]:
    """Return what an earlier call has written of the same data; nothing where the file is missing or damaged."""
    try:
        return dict(json.loads(file.read_text(encoding="utf-8"))["splits"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def rows(measured: Mapping[str, Measured]) -> dict[str, str]:
    """Return a row a split for the terminal."""
    return {name: row(one) for name, one in measured.items()}


def row(one: Measured) -> str:
    """Return a split's mean and deviation in one line, with standard errors where it was sampled."""
    errors = one.errors
    mean = numbers(one.statistics.mean, errors.mean if errors else None)
    std = numbers(one.statistics.std, errors.std if errors else None)
    of = (
        f"{one.statistics.count:,} pictures"
        if errors is None
        else f"{one.statistics.count:,} of {one.population:,} pictures"
    )
    return f"mean {mean}  std {std}  ({of}{', exact' if errors is None else ''})"


def numbers(values: Sequence[float], errors: Sequence[float] | None) -> str:
    """Return numbers, each with its standard error where there are errors."""
    if errors is None:
        return ", ".join(f"{value:.4f}" for value in values)
    return ", ".join(f"{value:.4f} ± {error:.4f}" for value, error in zip(values, errors, strict=True))
