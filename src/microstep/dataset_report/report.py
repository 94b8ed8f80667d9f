"""Measures a data set and writes its report, for compute_stats.py."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from microstep.components.dataset.image_dataset import ImageDataset, hash_splits
from microstep.dataset_report import text
from microstep.dataset_report.health import HealthReport
from microstep.dataset_report.plot import draw_overview
from microstep.dataset_report.sampling import group_numbers
from microstep.dataset_report.statistics import measure_surveys, survey_splits
from microstep.dataset_report.survey import ChunkProgressBar
from microstep.errors import ConfigError
from microstep.types.protocols import Dataset
from microstep.utils.files import storage_errors, write_atomic
from microstep.utils.json_files import read_json_or_empty, write_json
from microstep.utils.tables import format_fields
from microstep.utils.terminal import print_json

MAX_REPORT_BYTES = 2**28  #: of an earlier report


def write_dataset_report(
    dataset: Dataset, name: str, split: str, ratio: float | None, seed: int, output: Path, bar: ChunkProgressBar
) -> str:
    """Measure a data set and write `<name>-<fingerprint>.json` and `.png` below `output`.

    Measurements of other splits or samples in an earlier JSON file are kept. Files are written atomically.

    Args:
        name: the data set's option name.
        split: names of official splits, separated by commas.
        ratio: the share of images to draw from each split; None for all.
        seed: of the draw.

    Returns:
        The text to print.

    Raises:
        ConfigError: the data set has no images, there is no such split, or a sample has fewer than two images.
        DataError: no image of a split can be read.
        StorageError: a file can't be written.
    """
    if not isinstance(dataset, ImageDataset):
        raise ConfigError(f"dataset={name}", "it does not contain images", "choose one that does, see conf/dataset/")
    fingerprint, dataset = hash_splits(dataset.official_splits), group_numbers(dataset)
    surveys, official_splits = survey_splits(dataset, split.split(","), ratio, seed, bar), dataset.official_splits
    statistics, health = measure_surveys(surveys), HealthReport.from_surveys(surveys, official_splits)
    file = output / f"{name}-{fingerprint[:12]}.json"
    image = draw_overview(name, official_splits)
    with storage_errors(file):
        output.mkdir(parents=True, exist_ok=True)
    write_atomic(file.with_suffix(".png"), image, durable=False)
    draw = "" if ratio is None else f" ratio={ratio} seed={seed}"  # a sample never replaces an exact result
    splits = {f"{label}{draw}": one.to_dict() for label, one in statistics.items()}
    previous = read_json_or_empty(file, MAX_REPORT_BYTES)
    checked = {f"{'+'.join(health.checked)}{draw}": health.to_dict()}
    merged = {"splits": merge_entries(previous, "splits", splits), "health": merge_entries(previous, "health", checked)}
    write_json(file, {"dataset": name, **merged})
    print_json({"dataset": name, "splits": splits, "health": health.to_dict(), "file": str(file)})
    sizes = {f"  {k}": text.format_image_sizes(one.sizes) for k, one in statistics.items() if "+" not in k}
    parts = [
        format_fields({label: text.format_statistics_row(one) for label, one in statistics.items()}),
        text.format_class_table(statistics, official_splits),
        f"  sizes (width × height)\n{format_fields(sizes)}",
        text.format_health(health, list(official_splits)),
        f"# for conf/dataset/{name}.yaml\n{text.format_yaml_snippet(statistics)}",
        f"written to {file.with_suffix('.png')}\nwritten to {file}",
    ]
    return "\n\n".join(parts)


def merge_entries(previous: Mapping[str, Any], key: str, entries: dict[str, Any]) -> dict[str, Any]:
    """Return the entries with those of an earlier file. A damaged file counts as empty."""
    earlier = previous.get(key)
    return (earlier if isinstance(earlier, dict) else {}) | entries
