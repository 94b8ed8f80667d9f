"""Writes a model card: the README.md that the Hugging Face hub shows beside the weights of a run."""

import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest, bootstrap

from microstep.components.logger.console import format_metrics
from microstep.config.allowlist import Allowlist
from microstep.config.experiment import WEIGHTS_FILENAME
from microstep.errors import ConfigError, escape_unprintable
from microstep.evaluation.evaluate import EvaluatedRun, Overrides, evaluate_run
from microstep.run.record import RunRecord
from microstep.run.weights import read_exported_weights
from microstep.utils.files import write_atomic
from microstep.utils.json_files import read_json_or_empty
from microstep.utils.progress_bar import ProgressBars

SEAL = "\n<!-- export=card, sha256 "  #: begins the last line, a digest of the text before it


def write_card(
    run_dir: Path, split: str, allowlist: Allowlist, bars: ProgressBars, given: Overrides
) -> tuple[Path, Mapping[str, Any]]:
    """Evaluate the exported weights of a run on a split, and write README.md. Return the file, and the results.

    Raise ConfigError if a README.md of the user's is there. For the arguments and other errors see `evaluate_run`.
    """
    if (file := run_dir / "README.md").is_symlink() or (
        file.exists() and not is_sealed(file.read_text(errors="replace"))
    ):
        raise ConfigError(str(file), "you wrote or edited it, and export=card would replace it", "move or rename it")
    done = evaluate_run(run_dir, split, WEIGHTS_FILENAME, allowlist, None, bars, given)
    about = read_exported_weights(run_dir / WEIGHTS_FILENAME).metadata
    write_atomic(file, seal(format_card(RunRecord.read(run_dir), about, split, done)).encode())
    return file, {"metrics": done.result.metrics, "epoch": done.epoch, "sentence": format_metrics(done.result.metrics)}


def seal(text: str) -> str:
    return f"{text}{SEAL}{sha256(text.encode()).hexdigest()} -->\n"


def is_sealed(content: str) -> bool:
    """Return whether a card is as it was written."""
    return content == seal(content.rpartition(SEAL)[0])


def format_card(record: RunRecord, about: Mapping[str, str], split: str, done: EvaluatedRun) -> str:
    values, size, origin = done.result.metrics, record.numbers.get("parameters", 0), record.experiment_hash
    data, model, task = (record.choices.get(key, "own") for key in ("dataset", "model", "task"))
    kind = "image-regression" if task == "regression" else "image-classification"
    types = {name: re.sub("^f1_.*", "f1", name) for name in values if name != "loss"}
    entries = (f"{{type: {types[name]}, name: {name}, value: {values[name]:.6g}}}" for name in types)
    cells = {name: f"{value:.4f} | " for name, value in values.items()} | format_mean_score(done.directory)
    rows = "\n".join(f"| {name} | {cell} |" for name, cell in cells.items())
    command = re.sub(r"(?<![^\s=])[~/]\S*/", "", escape_unprintable(str(record.content.get("command"))))
    tested = "`val`, which chose the checkpoint," if split == "val" else f"`{split}`"
    return f"""---
library_name: microstep
pipeline_tag: {kind}
tags: [pytorch, {kind}]
datasets: [{data}]
metrics: [{", ".join(sorted({*types.values()}))}]
model-index:
- name: {model}-{data}
  results:
  - task: {{type: {kind}}}
    dataset: {{type: {data}, name: {data}, split: {split}}}
    metrics: [{", ".join(entries)}]
---

# {model} trained on {data}

`model.safetensors` of epoch {done.epoch}, {size:,} parameters, experiment {origin}:

    {command}

| metric | {split} | 95 % interval over samples |
|---|---|---|
{rows}

- Data: {", ".join(f"{count:,} {name}" for name, count in record.samples.items())}. Classes: {about.get("class_names")}
- An input is {about.get("input_shape")} (channels, height, width). Images are fitted by `{about.get("fit", "crop")}`.
- Tested on {tested} alone: not on images of other cameras, places or times, and with one seed.
{format_classes(read_json_or_empty(done.directory / "classification_report.json"))}"""


def format_mean_score(report: Path) -> dict[str, str]:
    """Return name and cells of the mean score of the samples, with its 95 % interval: Wilson's of the accuracy."""
    name = (report / "scores.csv").read_text().splitlines()[0].partition(",")[2]
    scores = np.loadtxt(report / "scores.csv", delimiter=",", skiprows=1, usecols=1, ndmin=1)
    share = name == "right" and binomtest(int(scores.sum()), len(scores)).proportion_ci(method="wilson")
    low, high = share or bootstrap((scores,), np.mean, batch=100, method="percentile", rng=0).confidence_interval
    return {"accuracy" if share else f"mean {name}": f"{scores.mean():.4f} | {low:.4f} to {high:.4f}"}


def format_classes(report: dict[str, Any]) -> str:
    """Return Markdown that names the classes with the lowest F1 in classification_report.json."""
    rows = {name: row for name, row in report.items() if isinstance(row, dict) and not name.endswith(" avg")}
    weak = sorted(rows, key=lambda name: rows[name]["f1-score"])[:5]
    shown = ", ".join(f"{name} {rows[name]['f1-score']:.2f} ({rows[name]['support']:.0f} samples)" for name in weak)
    escaped = re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", shown)
    return f"- Any image gets one of {len(rows)} classes. Those of the lowest F1: {escaped}.\n" if rows else ""
