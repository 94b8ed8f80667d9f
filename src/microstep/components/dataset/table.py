"""Image files that a CSV or Parquet file lists with their classes, labels or numbers."""

import csv
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from microstep.components.dataset.file_dataset import file_dataset
from microstep.components.dataset.files import ImageFiles
from microstep.components.dataset.image_dataset import ImageDataset
from microstep.components.dataset.images import ProgressBar, Targets, no_progress_bar
from microstep.components.dataset.layout import SPLIT_FOLDERS
from microstep.errors import ConfigError, DataError
from microstep.utils.text import format_names

Row = tuple[str, dict[str, str]]  #: its place in the file, and its cells by column
TARGET_KEYS = ("label", "labels", "target")
COLUMN_KEYS = ("path", *TARGET_KEYS, "split", "group")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
SPLIT_NAMES = {name: split for split, names in SPLIT_FOLDERS.items() for name in names}


def table(
    device: torch.device,
    file: str,
    root: str | None = None,
    resident: bool | str = "auto",
    num_workers: int | None = None,
    bar: ProgressBar = no_progress_bar,
    **options: Any,
) -> ImageDataset:
    """Build a data set from image files that a table lists, one a row. The order of the rows does not matter.

    A column is used if its name is given, or is that of its key: `path`; one of `label` (a class), `labels` (any
    number of labels: `cat|dog`; it is unknown whether an image has the label `?cat`) and `target` (a number); `split`
    (`train`, `val` or `test`); `group` (such as a patient, whose images stay in one split).

    Args:
        file: Parquet file if its suffix is .parquet; else UTF-8 CSV with a header, and commas, semicolons or tabs.
        root: Directory that the paths are relative to; None for that of `file`.
        options: Names of columns by key, and further arguments of `file_dataset`.

    Raises:
        ConfigError: If pyarrow, which reads Parquet, is not installed; see also `file_dataset`.
        DataError: If the table can't be read, a column or an image is missing, or a cell is not valid.
    """
    table = Table.read(Path(file), {key: options.pop(key, None) for key in COLUMN_KEYS})
    directory, groups = Path(root or table.file.parent), table.columns.get("group")
    files, (targets, names) = np.array(table.read_paths(directory)), table.read_targets()
    source = ImageFiles(directory, files, targets, names, groups=None if groups is None else np.array(groups))
    order, splits = files.argsort(), np.array(table.read_splits())
    rows = {name: order[splits[order] == name] for name in SPLIT_FOLDERS if name in splits}
    official = {name: replace(source.select(rows[name]), indices=None) for name in rows}
    return file_dataset(official, device, resident=resident, num_workers=num_workers, bar=bar, **options)


@dataclass(frozen=True)
class Table:
    """The columns of a table that a data set uses, by key. Cells are texts without spaces around them."""

    file: Path
    columns: dict[str, list[str]]
    places: list[str]  #: the place of each row in the file, such as `line 2`

    @classmethod
    def read(cls, file: Path, named: dict[str, str | None]) -> "Table":
        """Read the columns that are named or called like their key. Raise a DataError if one is missing or has gaps."""
        try:
            if not (found := [*(read_parquet if file.suffix.lower() == ".parquet" else read_csv)(file)]):
                raise ValueError("there are no rows")
        except (OSError, ValueError, csv.Error) as error:
            reason = getattr(error, "strerror", None) or f"it holds no table: {error}"
            raise DataError(f"dataset.file={file}", reason, "give UTF-8 CSV with a header, or Parquet") from None
        places, rows = zip(*found, strict=True)
        given = {key: str(name) for key, name in named.items() if name is not None}
        omitted = TARGET_KEYS if given.keys() & TARGET_KEYS else ()
        used = {key: key for key in named if key in {"path", *rows[0]}.difference(omitted)} | given
        for key, name in used.items():
            if name not in rows[0]:
                near = get_close_matches(name, rows[0], n=1) or [f"one of {format_names([*rows[0]])}"]
                raise DataError(f"dataset.{key}={name}", f"{file} has no such column", f"did you mean {near[0]}?")
        table = cls(file, {key: [row[name] for row in rows] for key, name in used.items()}, [*places])
        for key in used.keys() - {"labels"}:
            if "" in (cells := table.columns[key]):
                raise table.make_error(cells.index(""), f"its {used[key]} is empty", "fill it in, or remove the row")
        return table

    def make_error(self, row: int, reason: str, remedy: str) -> DataError:
        return DataError(f"{self.file}, {self.places[row]}", reason, remedy)

    def read_paths(self, root: Path) -> list[str]:
        """Return the paths, relative to a directory. Raise a DataError if a file is missing, or there twice."""
        paths, rows = [os.path.normpath(path) for path in self.columns["path"]], dict[str, int]()
        for row, path in enumerate(paths):
            if (first := rows.setdefault(path, row)) != row:
                raise self.make_error(row, f"{path} is in {self.places[first]}, too", "keep one of the two")
        if missing := [row for row, path in enumerate(paths) if not (root / path).is_file()]:
            reason = f"{len(missing):,} of {len(paths):,} files are missing, the first is {root / paths[missing[0]]}"
            raise self.make_error(missing[0], reason, "give dataset.root=DIR, or correct the paths")
        return paths

    def read_splits(self) -> list[str]:
        """Return the split of each row. Raise a DataError for an unknown name, or a group in two splits."""
        cells = self.columns.get("split", ["train"] * len(self.places))
        splits = [SPLIT_NAMES.get(cell.lower(), cell) for cell in cells]
        split_of = dict(zip(groups := self.columns.get("group", self.places), splits, strict=True))
        for row, (split, group) in enumerate(zip(splits, groups, strict=True)):
            if split not in SPLIT_FOLDERS:
                raise self.make_error(row, f"{split} is no split", f"the options are {', '.join(SPLIT_FOLDERS)}")
            if split != split_of[group]:
                raise self.make_error(row, f"group {group} is in {split_of[group]}, too", "keep it in one split")
        return splits

    def read_targets(self) -> tuple[Targets, tuple[str, ...]]:
        """Return the targets, and the names of their classes or columns. Raise a DataError if there is not one kind."""
        if len(kinds := [key for key in TARGET_KEYS if key in self.columns]) != 1:
            reason = f"it takes one of {', '.join(TARGET_KEYS)}, and has {' and '.join(kinds) or 'none'}"
            raise DataError(f"dataset.file={self.file}", reason, "name a column: dataset.label=COLUMN")
        cells = self.columns[kinds[0]]
        if kinds == ["target"]:
            return self.parse_numbers(cells), ()
        if kinds == ["labels"]:
            return encode_labels(cells)
        names, labels = np.unique(cells, return_inverse=True)
        return labels.astype(np.int64), tuple(names.tolist())

    def parse_numbers(self, cells: Sequence[str]) -> Targets:
        numbers = np.array([float(cell) if NUMBER.fullmatch(cell) else np.nan for cell in cells])
        for row in np.flatnonzero(~(np.abs(numbers) <= np.finfo(np.float32).max)).tolist():
            raise self.make_error(row, f"its target is {cells[row]}", "give a finite number")
        return numbers.astype(np.float32)


def encode_labels(cells: Sequence[str]) -> tuple[Targets, tuple[str, ...]]:
    """Return 1, 0 or NaN, if it is unknown, for each row and name (N × C), and the sorted names."""
    rows = [{name for part in cell.split("|") if (name := part.strip())} for cell in cells]
    names = sorted({name.removeprefix("?") for row in rows for name in row})
    values = [[np.nan if f"?{name}" in row else name in row for name in names] for row in rows]
    return np.array(values, dtype=np.float32).reshape(len(rows), len(names)), tuple(names)


def read_csv(file: Path) -> Iterator[Row]:
    text = file.read_text("utf-8-sig")
    reader = csv.DictReader(StringIO(text), delimiter=max(",;\t", key=text.partition("\n")[0].count), strict=True)
    for row in reader:
        cells = {name.strip(): cell.strip() for name, cell in row.items() if None not in (name, cell)}
        if len(cells) != len(reader.fieldnames or ()) or None in row:
            raise ValueError(f"line {reader.line_num} has not one cell for each column, or two columns have one name")
        yield f"line {reader.line_num}", cells


def read_parquet(file: Path) -> Iterator[Row]:
    try:
        rows = import_module("pyarrow.parquet").read_table(file).to_pylist()
    except ImportError:
        reason = "pyarrow, which reads Parquet, is not installed"
        raise ConfigError(f"dataset.file={file}", reason, "pip install 'microstep[table]'") from None
    for number, row in enumerate(rows, 1):
        yield f"row {number}", {name: format_cell(value) for name, value in row.items()}


def format_cell(value: Any) -> str:
    """Return a value as a CSV file would hold it; a list with bars."""
    return "|".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value).strip()
