"""What compute_stats.py does with a data set: look at it, and then write all there is to say, or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from microstep.components.dataset.image_dataset import ImageDataset, hash_splits
from microstep.dataset_report.health import Health
from microstep.dataset_report.plot import page
from microstep.dataset_report.statistics import Measured, figures, surveyed
from microstep.dataset_report.survey import Bar
from microstep.dataset_report.text import class_table, health_text, rows, sizes_row, snippet
from microstep.errors import ConfigError
from microstep.types.protocols import Dataset
from microstep.utils.files import storage_errors, write_atomic
from microstep.utils.json_files import read_json_or_empty, write_json
from microstep.utils.tables import format_fields

LARGEST = 2**28  #: bytes of an earlier report


def report(dataset: Dataset, name: str, split: str, ratio: float | None, seed: int, output: Path, bar: Bar) -> str:
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
    surveys, published = surveyed(dataset, split.split(","), ratio, seed, bar), dataset.official
    measured, health = figures(surveys), Health.of(surveys, published)
    file = output / f"{name}-{hash_splits(published)[:12]}.json"
    picture = page(name, published)
    with storage_errors(file):
        output.mkdir(parents=True, exist_ok=True)
    write_atomic(file.with_suffix(".png"), picture, durable=False)
    write_json(file, content(file, name, measured, health, ratio, seed))
    yaml = f"# for conf/dataset/{name}.yaml\n{snippet(measured)}"
    written = f"written to {file.with_suffix('.png')}\nwritten to {file}"
    found = class_table(measured, published), sizes_text(measured), health_text(health, list(published))
    return "\n\n".join([format_fields(rows(measured)), *found, yaml, written])


def content(
    file: Path, name: str, statistics: Mapping[str, Measured], health: Health, ratio: float | None, seed: int
) -> dict[str, Any]:
    """Return what the JSON file says, with what an earlier call has written of other splits or samples."""
    splits = {drawn_as(label, ratio, seed): one.plain() for label, one in statistics.items()}
    looked = {drawn_as("+".join(health.checked), ratio, seed): health.plain()}
    return {"dataset": name, "splits": known(file, "splits") | splits, "health": known(file, "health") | looked}


def sizes_text(statistics: Mapping[str, Measured]) -> str:
    """Return a line a split on the sizes of its pictures."""
    splits = {label: one for label, one in statistics.items() if "+" not in label}
    fields = {f"  {label}": sizes_row(one.sizes) for label, one in splits.items()}
    return f"  sizes (width × height)\n{format_fields(fields)}"


def drawn_as(label: str, ratio: float | None, seed: int) -> str:
    """Return the key of what was measured: a sample's tells of the draw, so that it never replaces what is exact."""
    return label if ratio is None else f"{label} ratio={ratio} seed={seed}"


def known(file: Path, key: str) -> dict[str, Any]:
    """Return what an earlier call has written of the same data; nothing where the file is missing or damaged."""
    found = read_json_or_empty(file, LARGEST).get(key)
    return found if isinstance(found, dict) else {}
