"""Compares two runs that should be the same run."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TABS = ("_hparams_/session_end_info", "custom_scalars__config__")
NO_STATE = {"run", "choices", "metadata", "logs", "progress"}  #: what identifies a checkpoint, or has times
TIMED_COLUMNS = {"samples_per_second", "seconds"}
TIMED = {"train/samples_per_second", "train/data_wait_fraction"}


def manifest_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "checkpoints" / "manifest.json").read_text())


def unfinished(finished: Path, copy: Path) -> Path:
    """Return a copy of a finished run that looks as if it had been stopped at its end."""
    shutil.copytree(finished, copy)
    record = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps(record | {"status": "interrupted"}))
    return copy


def state_of(run: Path, which: str) -> dict[str, Any]:
    """Return the state in a checkpoint, read with torch alone."""
    return torch.load(run / "checkpoints" / manifest_of(run)[which]["file"], weights_only=True)


def metrics_of(run: Path) -> list[dict[str, str]]:
    """Return the rows of metrics.csv, without speeds."""
    with (run / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    return [{name: value for name, value in row.items() if name not in TIMED_COLUMNS} for row in rows]


def scalars_of(run: Path) -> dict[str, list[tuple[int, str]]]:
    """Return every TensorBoard scalar by step, without speeds; as text, so that a NaN equals itself."""
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    tags = set(events.Tags()["scalars"]) - TIMED
    return {tag: [(event.step, repr(event.value)) for event in events.Scalars(tag)] for tag in sorted(tags)}


def tabs_of(run: Path) -> list[tuple[str, str]]:
    """Return how the hparams tab says that the run ended, and the layouts of its charts."""
    events = EventAccumulator(str(run)).Reload()
    return [(str(events.SummaryMetadata(tag)), str([e.tensor_proto for e in events.Tensors(tag)])) for tag in TABS]


def differences(one: Path, other: Path) -> list[str]:
    """Return the differences between two finished runs that should be the same bit for bit."""
    found = []
    for which in ("last", "best"):
        a, b = state_of(one, which), state_of(other, which)
        for part in sorted((a.keys() | b.keys()) - NO_STATE):
            found += [f"{which} {part}"] if not same(a.get(part), b.get(part)) else []
    for split in ("val", "test"):
        reports = [texts_of(run / "reports" / split) for run in (one, other)]
        names = sorted(set.union(*map(set, reports)))
        found += [f"{split}/{name}" for name in names if len({report.get(name) for report in reports}) > 1]
    found += ["metrics.csv"] if metrics_of(one) != metrics_of(other) else []
    found += ["TensorBoard"] if (scalars_of(one), tabs_of(one)) != (scalars_of(other), tabs_of(other)) else []
    return found


def texts_of(report: Path) -> dict[str, bytes]:
    """Return the files of a report that hold numbers, by name."""
    return {file.name: file.read_bytes() for file in report.iterdir() if file.suffix in (".csv", ".json", ".txt")}


def same(one: Any, other: Any) -> bool:
    """Return whether two states are equal, tensors bit for bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)
