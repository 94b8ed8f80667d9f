"""Sweep directories written by hand, like those of real runs."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

Values = dict[str, str]
Score = Callable[[Values], float]


def record(val: float, test: float, **facts: Any) -> dict[str, Any]:
    """Return the content of the run.json of a finished run."""
    return {
        "status": "finished",
        "error": None,
        "epoch": 4,
        "epochs": 4,
        "monitor": "accuracy",
        "direction": "max",
        "effective_batch_size": 64,
        "train_seconds": 2.5,
        "samples_per_second": 9000.5,
        "peak_memory_bytes": 2**30,
        "metrics": {
            "best": {"epoch": 4, "loss": 1 - val, "accuracy": val},
            "val": {"loss": 1 - val, "accuracy": val},
            "test": {"loss": 1 - test, "accuracy": test},
        },
        "choices": {"dataset": "digits", "model": "small_cnn", "precision": "fp32"},
        **facts,
    }


def plant_run(directory: Path, facts: Mapping[str, Any], monitor: str = "accuracy", epochs: int = 4) -> None:
    """Write a run's run.json and metrics.csv."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "run.json").write_text(json.dumps(facts))
    final = facts.get("metrics", {}).get("val", {}).get(monitor, 0.5)
    header = ["epoch", "optimizer_steps", "train_loss", f"val_{monitor}", "lr", "samples_per_second", "seconds"]
    with (directory / "metrics.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        for epoch in range(1, epochs + 1):
            writer.writerow([epoch, 10 * epoch, 1 / epoch, final - 0.1 * (epochs - epoch) / epoch, 0.1, 9000.5, 0.6])


def plant_index(
    directory: Path, jobs: Mapping[str, Sequence[str]], command: str = "python train.py -m", stale: Sequence[str] = ()
) -> Path:
    """Write sweep.json: each job's overrides."""
    directory.mkdir(parents=True, exist_ok=True)
    content = {
        "name": directory.name,
        "command": command,
        "jobs": {name: {"overrides": list(words)} for name, words in jobs.items()},
        "stale": dict.fromkeys(stale, "source"),
    }
    (directory / "sweep.json").write_text(json.dumps(content))
    return directory


def plant_sweep(
    directory: Path, grid: Mapping[str, Sequence[Any]], val: Score, test: Score | None = None, **facts: Any
) -> Path:
    """Write a sweep of finished runs over a grid; the metrics of each are computed from its values."""
    jobs = {}
    for values in product(*grid.values()):
        found = dict(zip(grid, map(str, values), strict=True))
        name = "_".join(f"{key}-{value}" for key, value in sorted(found.items())) or "defaults"
        jobs[name] = [f"{key}={value}" for key, value in found.items()]
        own = {name: fact(found) if callable(fact) else fact for name, fact in facts.items()}
        plant_run(directory / name, record(val(found), (test or val)(found), **own))
    words = " ".join(f"{key}={','.join(map(str, values))}" for key, values in grid.items())
    return plant_index(directory, jobs, f"python train.py -m {words} sweep={directory.name}")
