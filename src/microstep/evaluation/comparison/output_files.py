"""What a comparison leaves behind: its page, its numbers, its classes, the samples that flipped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from microstep.config.names import MAX_NAME_LENGTH, UNSAFE_CHARACTERS, safe_name
from microstep.evaluation.comparison.groups import RunGroup, find_setting_differences
from microstep.evaluation.comparison.results import SIGNIFICANCE_LEVEL
from microstep.evaluation.comparison.text import Comparison
from microstep.utils.files import write_directory
from microstep.utils.json_files import read_json, replace_nonfinite
from microstep.utils.tables import csv_bytes
from microstep.utils.text import display_path

COMPARISONS_DIRECTORY = Path("outputs/comparisons")


def get_comparison_directory(comparison: Comparison) -> Path:
    """Return where a comparison goes: `<run>-against-<baseline>`, and the split and weights where they aren't usual.

    Names that were cut, or that an earlier comparison of other runs has, end in eight letters of a hash.
    """
    usual = {"test": "", "best": ""}
    parts = [f"{comparison.names[0]}-against-{comparison.names[1]}", usual.get(comparison.split, comparison.split)]
    exact = "-".join(filter(None, [*parts, usual.get(comparison.checkpoint, Path(comparison.checkpoint).stem)]))
    safe = UNSAFE_CHARACTERS.sub("-", exact).strip(".-")
    if len(safe) <= MAX_NAME_LENGTH and read_compared_directories(COMPARISONS_DIRECTORY / safe) in (
        None,
        get_compared_directories(comparison),
    ):
        return COMPARISONS_DIRECTORY / safe
    return COMPARISONS_DIRECTORY / safe_name(safe, get_compared_directories(comparison))


def get_compared_directories(comparison: Comparison) -> list[list[str]]:
    """Return the directories that are compared, of both sides."""
    return [
        [display_path(run.directory) for run in side.runs] for side in (comparison.match.run, comparison.match.baseline)
    ]


def read_compared_directories(directory: Path) -> list[list[str]] | None:
    """Return what a directory is the comparison of; None where it is of none."""
    try:
        record = read_json(directory / "comparison.json", 2**24)
        return [record[side]["directories"] for side in ("run", "baseline")]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_comparison_files(comparison: Comparison, files: Mapping[str, bytes], directory: Path) -> None:
    """Write the files, none before all are made.

    Raises:
        StorageError: those of an earlier comparison are still there then.
    """
    with write_directory(directory) as draft:
        for name, content in files.items():
            (draft / name).write_bytes(content)
        if "flips.png" not in files:
            (directory / "flips.png").unlink(missing_ok=True)  # an earlier comparison's


def format_comparison_json(comparison: Comparison) -> bytes:
    found, verdict = comparison.verdict.figures, comparison.verdict
    run, baseline = comparison.match.run, comparison.match.baseline
    content = {
        "verdict": verdict.word,
        "sentence": comparison.sentence,
        "run": group_as_json(run, comparison.names[0]),
        "baseline": group_as_json(baseline, comparison.names[1]),
        "differences": {key: list(pair) for key, pair in find_setting_differences(run, baseline).items()},
        "data": {"fingerprint": baseline.first.fingerprint, "split": comparison.split, "samples": found.paired.samples},
        "checkpoint": comparison.checkpoint,
        "accuracy": asdict(found.accuracy),
        "macro_f1": asdict(found.macro_f1),
        "level": SIGNIFICANCE_LEVEL,
        "p_value": found.p_value,
        "p_value_corrected": verdict.p_value,
        "comparisons": verdict.comparisons,
        "smallest_difference": verdict.smallest_difference,
        "by_seed": [
            {"seed": seed, "only_run": run, "only_baseline": baseline, "mcnemar": p}
            for seed, (run, baseline, p) in zip(run.seeds, found.by_seed, strict=True)
        ],
    }
    return f"{json.dumps(replace_nonfinite(content), indent=2, ensure_ascii=False)}\n".encode(errors="backslashreplace")


def group_as_json(group: RunGroup, name: str) -> dict[str, Any]:
    """Return what is compared on one side."""
    return {"name": name, "directories": [display_path(run.directory) for run in group.runs], "seeds": group.seeds}


def format_per_class_csv(comparison: Comparison) -> bytes:
    """Return per_class.csv: a row a class that has samples."""
    head = ["class", "samples", "run_recall", "baseline_recall", "run_f1", "baseline_f1"]
    rows: list[Sequence[object]] = [[*head, "only_run", "only_baseline", "p_value_corrected"]]
    for found in comparison.verdict.figures.classes:
        scores = (f"{value:.6f}" for value in (*found.recall, *found.f1))
        counts = (f"{value:g}" for value in (found.only_run, found.only_baseline))
        rows.append([comparison.class_names[found.label], found.samples, *scores, *counts, f"{found.p_value:.6g}"])
    return csv_bytes(rows)
