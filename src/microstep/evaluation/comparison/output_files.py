"""Output directory of a comparison, and its JSON and CSV files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from microstep.config.names import MAX_NAME_LENGTH, UNSAFE_CHARACTERS, safe_name
from microstep.evaluation.comparison.estimates import SIGNIFICANCE_LEVEL
from microstep.evaluation.comparison.names import find_setting_differences
from microstep.evaluation.comparison.results import ComparisonResult
from microstep.evaluation.comparison.text import Comparison
from microstep.utils.files import write_directory
from microstep.utils.json_files import read_json, replace_nonfinite
from microstep.utils.tables import csv_bytes

COMPARISONS_DIRECTORY = Path("outputs/comparisons")


def get_comparison_directory(comparison: Comparison) -> Path:
    """Return the directory of a comparison: `<run>-against-<baseline>[-<split>][-<checkpoint>]`.

    The split is left out if it is test, and the checkpoint if it is best or the names have it. The name ends in eight
    letters of a hash if it is too long, or if the directory has an earlier comparison of other runs.
    """
    defaults = {"test": "", "best": ""}
    split = defaults.get(comparison.split, comparison.split)
    run, baseline = comparison.checkpoints
    checkpoint = defaults.get(run, Path(run).stem) if run == baseline else ""
    parts = ["-against-".join(name.rstrip(")") for name in comparison.names), split, checkpoint]
    safe = UNSAFE_CHARACTERS.sub("-", "-".join(filter(None, parts))).strip(".-")
    compared = [comparison.match.run.directories, comparison.match.baseline.directories]
    earlier = read_compared_directories(COMPARISONS_DIRECTORY / safe) if len(safe) <= MAX_NAME_LENGTH else []
    identity = [*compared, comparison.split, *comparison.checkpoints]
    return COMPARISONS_DIRECTORY / (safe if earlier in (None, compared) else safe_name(safe, identity))


def read_compared_directories(directory: Path) -> list[list[str]] | None:
    try:
        record = read_json(directory / "comparison.json", 2**24)
        return [record[side]["directories"] for side in ("run", "baseline")]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_comparison_files(files: Mapping[str, bytes], directory: Path) -> None:
    """Write all files or, with a StorageError, none; the files of an earlier comparison are kept then."""
    with write_directory(directory) as draft:
        for name, content in files.items():
            (draft / name).write_bytes(content)
        for name in {"flips.png", "flips.csv", "per_class.csv"} - files.keys():
            (directory / name).unlink(missing_ok=True)  # of an earlier comparison


def describe_comparison(comparison: Comparison) -> dict[str, Any]:
    """Return the content of comparison.json."""
    result, verdict, folds = comparison.result, comparison.verdict, comparison.result.paired.folds
    run, baseline = comparison.match.run, comparison.match.baseline
    data = {"fingerprint": baseline.first.fingerprint, "split": comparison.split, "samples": result.paired.samples}
    return {
        "verdict": verdict.word,
        "sentence": comparison.sentence,
        "run": {"name": comparison.names[0], "directories": run.directories, "seeds": run.seeds},
        "baseline": {"name": comparison.names[1], "directories": baseline.directories, "seeds": baseline.seeds},
        "differences": {key: list(pair) for key, pair in find_setting_differences(run, baseline).items()},
        "training_differences": comparison.match.training_differences,
        "data": data,
        "checkpoint": comparison.checkpoints[0],
        "baseline_checkpoint": comparison.checkpoints[1],
        **format_scores(result),
        "time_uniform_interval": result.time_uniform_interval,
        "folds": folds and {"number": folds.count, "validation_per_training_sample": folds.overlap},
        "level": SIGNIFICANCE_LEVEL,
        "p_value": result.p_value,
        "p_value_corrected": verdict.p_value,
        "comparisons": verdict.comparisons,
        "smallest_difference": verdict.smallest_difference,
        "by_seed": [
            {"seed": seed, "only_run": only_run, "only_baseline": only_baseline, "mcnemar": p}
            for seed, (only_run, only_baseline, p) in zip(run.rows, result.by_seed, strict=False)
        ],
    }


def format_comparison_json(comparison: Comparison) -> bytes:
    content = replace_nonfinite(describe_comparison(comparison))
    return f"{json.dumps(content, indent=2, ensure_ascii=False)}\n".encode(errors="backslashreplace")


def format_scores(result: ComparisonResult) -> dict[str, Any]:
    if result.macro_f1:
        return {"accuracy": asdict(result.score), "macro_f1": asdict(result.macro_f1)}
    return {"score": {"name": result.paired.name, **asdict(result.score)}}


def format_per_class_csv(comparison: Comparison) -> bytes:
    head = ["class", "samples", "run_recall", "baseline_recall", "run_f1", "baseline_f1"]
    rows: list[Sequence[object]] = [[*head, "only_run", "only_baseline", "p_value_corrected"]]
    for found in comparison.result.classes:
        scores = (f"{value:.6f}" for value in (*found.recall, *found.f1))
        counts = (f"{value:g}" for value in (found.only_run, found.only_baseline))
        rows.append([comparison.class_names[found.label], found.samples, *scores, *counts, f"{found.p_value:.6g}"])
    return csv_bytes(rows)
