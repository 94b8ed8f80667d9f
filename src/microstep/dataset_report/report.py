"""What compute_stats.py does with a data set: look at it, and then write all there is to say, or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from microstep.components.dataset.image_dataset import ImageDataset, hash_splits
from microstep.dataset_report.health import HealthReport
from microstep.dataset_report.plot import draw_overview
from microstep.dataset_report.statistics import SplitStatistics, measure_surveys, survey_splits
from microstep.dataset_report.survey import ChunkProgressBar
from microstep.dataset_report.text import (
    format_class_table,
    format_health,
    format_image_sizes,
    format_statistics_rows,
    format_yaml_snippet,
)
from microstep.errors import ConfigError
from microstep.types.protocols import Dataset
from microstep.utils.files import storage_errors, write_atomic
from microstep.utils.json_files import read_json_or_empty, write_json
from microstep.utils.tables import format_fields

LARGEST = 2**28  #: bytes of an earlier report


def write_dataset_report(
    dataset: Dataset, name: str, split: str, ratio: float | None, seed: int, output: Path, bar: ChunkProgressBar
) -> str:
    """Measure a data set, write `<name>-<fingerprint>.json` and .png below `output`, and return what to print.

    Args:
        name: the data set's, as its config is called.
        split: official ones, between commas.
        ratio, seed, bar: see `surveyed`.

    Raises:
        ConfigError: for a data set without pictures, another split, or a sample of fewer than two pictures.
        DataError: where no picture of a split can be read.
        StorageError: where a file can't be written; each is whole or not there.
    """
    if not isinstance(dataset, ImageDataset):
        raise ConfigError(f"dataset={name}", "it is none of pictures", "choose one that is, see conf/dataset/")
    surveys, published = survey_splits(dataset, split.split(","), ratio, seed, bar), dataset.official
    measured, health = measure_surveys(surveys), HealthReport.of(surveys, published)
    file = output / f"{name}-{hash_splits(published)[:12]}.json"
    picture = draw_overview(name, published)
    with storage_errors(file):
        output.mkdir(parents=True, exist_ok=True)
    write_atomic(file.with_suffix(".png"), picture, durable=False)
    write_json(file, make_report_content(file, name, measured, health, ratio, seed))
    yaml = f"# for conf/dataset/{name}.yaml\n{format_yaml_snippet(measured)}"
    written = f"written to {file.with_suffix('.png')}\nwritten to {file}"
    found = format_class_table(measured, published), format_all_sizes(measured), format_health(health, list(published))
    return "\n\n".join([format_fields(format_statistics_rows(measured)), *found, yaml, written])


def make_report_content(
    file: Path,
    name: str,
    statistics: Mapping[str, SplitStatistics],
    health: HealthReport,
    ratio: float | None,
    seed: int,
) -> dict[str, Any]:
    """Return what the JSON file says, with what an earlier call has written of other splits or samples."""
    splits = {get_measurement_key(label, ratio, seed): one.plain() for label, one in statistics.items()}
    looked = {get_measurement_key("+".join(health.checked), ratio, seed): health.plain()}
    return {
        "dataset": name,
        "splits": read_previous_measurements(file, "splits") | splits,
        "health": read_previous_measurements(file, "health") | looked,
    }


def format_all_sizes(statistics: Mapping[str, SplitStatistics]) -> str:
    """Return a line a split on the sizes of its pictures."""
    splits = {label: one for label, one in statistics.items() if "+" not in label}
    fields = {f"  {label}": format_image_sizes(one.sizes) for label, one in splits.items()}
    return f"  sizes (width × height)\n{format_fields(fields)}"


def get_measurement_key(label: str, ratio: float | None, seed: int) -> str:
    """Return the key of what was measured: a sample's tells of the draw, so that it never replaces what is exact."""
    return label if ratio is None else f"{label} ratio={ratio} seed={seed}"


def read_previous_measurements(file: Path, key: str) -> dict[str, Any]:
    """Return what an earlier call has written of the same data; nothing where the file is missing or damaged."""
    found = read_json_or_empty(file, LARGEST).get(key)
    return found if isinstance(found, dict) else {}
