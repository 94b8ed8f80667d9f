"""Statistics of a data set's official splits, exact or of a sample."""

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
from microstep.dataset_report.survey import ChunkProgressBar, SplitSurvey
from microstep.errors import ConfigError, escape_unprintable


@dataclass(frozen=True)
class SplitStatistics:
    """The statistics of a split, or of several together."""

    statistics: ChannelStatistics
    errors: StandardErrors | None  #: of a sample; None if all images were read
    population: int  #: number of images in the split, drawn or not, readable or not
    unreadable: int
    class_names: tuple[str, ...]
    classes: ClassStatistics
    sizes: Counter[tuple[int, int]]  #: number of images by published width and height

    def to_dict(self) -> dict[str, Any]:
        channels, errors = self.statistics, self.errors
        classes = zip(self.class_names, self.classes.counts, self.classes.means, strict=True)
        by_class = {name: {"count": count, "mean": mean} for name, count, mean in classes}
        sizes = [{"width": w, "height": h, "count": count} for (w, h), count in self.sizes.most_common()]
        moments: dict[str, Any] = {"mean": channels.mean, "std": channels.std}
        extremes = {"min": channels.minimum, "max": channels.maximum}
        counts = {"count": channels.count, "population": self.population, "unreadable": self.unreadable}
        standard_errors = {"mean_standard_error": errors.mean, "std_standard_error": errors.std} if errors else {}
        return moments | extremes | counts | standard_errors | {"classes": by_class, "sizes": sizes}


def survey_splits(
    dataset: ImageDataset, names: Sequence[str], ratio: float | None, seed: int, bar: ChunkProgressBar
) -> list[SplitSurvey]:
    """Read each image of some official splits once, or only a sample of each with the share `ratio`.

    Unreadable files are collected. Raise ConfigError if there is no such split or a sample has fewer than two images,
    DataError if no image of a split can be read.
    """
    check_split_names(names, list(dataset.official_splits))
    splits = {name: dataset.official_splits[name] for name in names}
    drawn = {name: draw_rows(len(one), ratio, seed) for name, one in splits.items()}
    in_memory = all(one.in_memory for one in splits.values())
    workers = WorkerPool(splits, 0 if in_memory else worker_count(dataset.num_workers))
    return [SplitSurvey.from_split(name, rows, workers, bar, ratio is not None) for name, rows in drawn.items()]


def check_split_names(names: Sequence[str], options: Sequence[str]) -> None:
    several = f", or {'both' if len(options) == 2 else 'several'}: {','.join(options)}" if len(options) > 1 else ""
    for name in names:
        if name not in options:
            raise ConfigError(f"split={name}", "no official split", f"the options are {', '.join(options)}{several}")
    if len(set(names)) < len(names):
        raise ConfigError(f"split={','.join(names)}", "a split is named twice", "name each once")


def draw_rows(population: int, ratio: float | None, seed: int) -> Sequence[int]:
    if ratio is None:
        return range(population)
    count = ceil(Fraction(str(ratio)) * population)  # in binary, 0.07 · 100 is more than 7
    if count < 2:
        raise ConfigError(f"ratio={ratio}", f"that is {count} of {population} images", "draw at least two")
    rows: list[int] = np.sort(np.random.default_rng(seed).choice(population, count, replace=False)).tolist()
    return rows


def measure_surveys(surveys: Sequence[SplitSurvey]) -> dict[str, SplitStatistics]:
    groups = {survey.split: [survey] for survey in surveys}
    if len(surveys) > 1:
        groups["+".join(groups)] = list(surveys)
    return {label: merge_surveys(group) for label, group in groups.items()}


def merge_surveys(surveys: Sequence[SplitSurvey]) -> SplitStatistics:
    totals, source = reduce(add, (survey.totals for survey in surveys)), surveys[0].source
    statistics = ChannelStatistics.from_sums(totals.channels, totals.count, source.scale)
    strata = [Stratum(survey.facts.moments, len(survey.source)) for survey in surveys]
    areas = totals.class_counts * prod(source.shape[1:])
    return SplitStatistics(
        statistics,
        compute_standard_errors(strata, statistics) if surveys[0].is_sample else None,
        sum(stratum.population for stratum in strata),
        sum(len(survey.unreadable) for survey in surveys),
        tuple(map(escape_unprintable, source.class_names)),
        ClassStatistics.of(totals.class_counts, areas, totals.class_totals, source.scale),
        Counter((width, height) for survey in surveys for width, height in survey.facts.sizes.tolist() if width),
    )
