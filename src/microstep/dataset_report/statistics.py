"""Statistics of a data set's official splits, exact or of a sample, for compute_stats.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from math import ceil, prod
from operator import add
from typing import Any

import numpy as np

from microstep.components.dataset.image_dataset import ImageDataset
from microstep.components.dataset.statistics import ChannelStatistics
from microstep.components.dataset.workers import WorkerPool, worker_count
from microstep.dataset_report.sampling import ClassStatistics, StandardErrors, Stratum, compute_standard_errors
from microstep.dataset_report.survey import ChunkProgressBar, SplitSurvey, make_printable
from microstep.errors import ConfigError


@dataclass(frozen=True)
class SplitStatistics:
    """A split's statistics; `errors` where they are a sample's."""

    statistics: ChannelStatistics
    errors: StandardErrors | None
    population: int  #: pictures as published, whether or not they were drawn and could be read
    unreadable: int
    class_names: tuple[str, ...]
    classes: ClassStatistics
    sizes: Counter[tuple[int, int]]  #: how many pictures were published in each width and height

    def plain(self) -> dict[str, Any]:
        """Return them for JSON."""
        found = self.statistics
        counts = {"count": found.count, "population": self.population, "unreadable": self.unreadable}
        plain = {"mean": found.mean, "std": found.std, "min": found.minimum, "max": found.maximum, **counts}
        if self.errors is not None:
            plain |= {"mean_standard_error": self.errors.mean, "std_standard_error": self.errors.std}
        figures = zip(self.class_names, self.classes.counts, self.classes.means, strict=True)
        plain["classes"] = {name: {"count": count, "mean": mean} for name, count, mean in figures}
        sizes = self.sizes.most_common()
        return plain | {"sizes": [{"width": w, "height": h, "count": count} for (w, h), count in sizes]}


def measure_dataset(
    dataset: ImageDataset, names: Sequence[str], ratio: float | None, seed: int, bar: ChunkProgressBar
) -> dict[str, SplitStatistics]:
    """Return the statistics of each official split named; of several, also those of all their pictures together.

    Args, Raises: see `surveyed`.
    """
    return measure_surveys(survey_splits(dataset, names, ratio, seed, bar))


def survey_splits(
    dataset: ImageDataset, names: Sequence[str], ratio: float | None, seed: int, bar: ChunkProgressBar
) -> list[SplitSurvey]:
    """Read the official splits named, each picture once; a file that can't be read stops nothing.

    Args:
        names: out of `dataset.official`.
        ratio: the share of pictures to draw from each, without replacement; None for all of them, exactly.
        seed: of the draw.
        bar: wraps a stream of chunks of so many pictures.

    Raises:
        ConfigError: for another split, or a sample of fewer than two pictures.
        DataError: where no picture of a split can be read.
    """
    check_split_names(names, list(dataset.official))
    splits = {name: dataset.official[name] for name in names}
    drawn = {name: draw_rows(len(one), ratio, seed) for name, one in splits.items()}
    in_memory = all(one.in_memory for one in splits.values())
    workers = WorkerPool(splits, 0 if in_memory else worker_count(dataset.num_workers))
    return [SplitSurvey.of(name, rows, workers, bar, ratio is not None) for name, rows in drawn.items()]


def check_split_names(names: Sequence[str], options: Sequence[str]) -> None:
    """Refuse splits that are not there, and those named twice."""
    several = f", or {'both' if len(options) == 2 else 'several'}: {','.join(options)}" if len(options) > 1 else ""
    for name in names:
        if name not in options:
            raise ConfigError(f"split={name}", "no official split", f"the options are {', '.join(options)}{several}")
    if len(set(names)) < len(names):
        raise ConfigError(f"split={','.join(names)}", "a split is named twice", "name each once")


def draw_rows(population: int, ratio: float | None, seed: int) -> Sequence[int]:
    """Return the rows to read, ascending."""
    if ratio is None:
        return range(population)
    count = ceil(Fraction(str(ratio)) * population)  # exactly: in binary 0.07 · 100 is more than 7
    if count < 2:
        raise ConfigError(f"ratio={ratio}", f"that is {count} of {population} pictures", "draw at least two")
    rows: list[int] = np.sort(np.random.default_rng(seed).choice(population, count, replace=False)).tolist()
    return rows


def measure_surveys(surveys: Sequence[SplitSurvey]) -> dict[str, SplitStatistics]:
    """Return the statistics of each split, and of several those of all their pictures."""
    groups = {survey.split: [survey] for survey in surveys}
    if len(surveys) > 1:
        groups["+".join(groups)] = list(surveys)
    return {label: merge_surveys(group) for label, group in groups.items()}


def merge_surveys(surveys: Sequence[SplitSurvey]) -> SplitStatistics:
    """Return the statistics of some splits' pictures together."""
    tally, pictures = reduce(add, (survey.tally for survey in surveys)), surveys[0].pictures
    statistics = ChannelStatistics.of(tally.channels, tally.count, pictures.scale)
    areas = tally.class_counts * prod(pictures.shape[1:])
    return SplitStatistics(
        statistics,
        compute_standard_errors(list(map(make_stratum, surveys)), statistics) if surveys[0].sampled else None,
        sum(len(survey.pictures) for survey in surveys),
        sum(len(survey.unreadable) for survey in surveys),
        tuple(map(make_printable, pictures.class_names)),
        ClassStatistics.of(tally.class_counts, areas, tally.class_totals, pictures.scale),
        tally.sizes,
    )


def make_stratum(survey: SplitSurvey) -> Stratum:
    return Stratum(survey.marks.moments, len(survey.pictures))
