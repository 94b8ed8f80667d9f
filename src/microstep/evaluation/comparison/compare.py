"""Compares saved runs from their directories."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from microstep.components.dataset.workers import loader_errors
from microstep.config.allowlist import Allowlist
from microstep.errors import ConfigError, MicrostepError
from microstep.evaluation.comparison.flips import Flip, decisive_flips, draw_flips, find_flips, format_flips_csv
from microstep.evaluation.comparison.groups import RunGroup, group_runs, name_groups, pair_by_seed
from microstep.evaluation.comparison.output_files import (
    format_comparison_json,
    format_per_class_csv,
    get_comparison_directory,
    write_comparison_files,
)
from microstep.evaluation.comparison.results import ComparisonResult
from microstep.evaluation.comparison.runs import (
    ReportedRun,
    ReportRequest,
    check_same_data,
    find_run_directories,
    read_compared_run,
)
from microstep.evaluation.comparison.text import Comparison, comparison_report_text, format_comparison_summary
from microstep.evaluation.comparison.verdict import make_verdicts
from microstep.evaluation.evaluate import get_report_directory
from microstep.training.builders import build_dataset
from microstep.utils.text import display_path

log = logging.getLogger("microstep.notice")
AllowlistFactory = Callable[[Sequence[Path]], Allowlist]


@dataclass(frozen=True)
class WrittenComparisons:
    """Comparisons made together, and the directory of each."""

    comparisons: list[Comparison]
    directories: list[Path]

    @property
    def text(self) -> str:
        """Report text: a page for one comparison, a table for several; the verdicts come last."""
        written = "\n".join(f"  written to {display_path(directory)}" for directory in self.directories)
        said = (
            comparison_report_text(self.comparisons[0])
            if len(self.comparisons) == 1
            else format_comparison_summary(self.comparisons)
        )
        return "\n\n".join(["", said, written, "\n".join(one.sentence for one in self.comparisons)])


@loader_errors()
def compare_runs(
    run: str, baseline: str, split: str, checkpoint: str, make_allowlist: AllowlistFactory
) -> WrittenComparisons:
    """Compare the settings of some runs with a baseline setting, and write the comparisons.

    Args:
        run: a run directory, or a pattern that matches several (`outputs/sweeps/s/*`).
        baseline: the same for the baseline.
        split: split of the reports that are compared.
        checkpoint: checkpoint of these reports. `evaluate.py` makes a missing report.
        make_allowlist: returns the gate for the configs of some run directories.

    Raises:
        ConfigError: if runs or reports are missing, `baseline` matches several settings, or the two sides differ in
            data or classes, or share no seed.
        DataError: if a report is damaged.
        StorageError: if nothing can be written.
    """
    report = get_report_directory(Path(), split, checkpoint)
    sides = [
        ReportRequest(key, value, split, checkpoint, report) for key, value in (("run", run), ("baseline", baseline))
    ]
    found = [find_run_directories(side) for side in sides]
    gate = make_allowlist([*found[0], *found[1]])
    base = require_one_group([read_compared_run(path, sides[1], gate) for path in found[1]], sides[1])
    ours = exclude_runs(found[0], found[1], sides[0])
    settings = group_runs([read_compared_run(path, sides[0], gate) for path in ours], "run")
    check_comparable(settings, base)
    comparisons = make_comparisons(settings, base, split, checkpoint)
    return WrittenComparisons(comparisons, [write_comparison(one, gate) for one in comparisons])


def exclude_runs(paths: Iterable[Path], excluded: Iterable[Path], request: ReportRequest) -> list[Path]:
    """Return the runs that are not in the baseline: a pattern may match these too."""
    away = {path.resolve() for path in excluded}
    left = [path for path in paths if path.resolve() not in away]
    if not left:
        raise ConfigError(request.subject, "it names no run but the baseline's", "name another, to compare with it")
    return left


def require_one_group(runs: Sequence[ReportedRun], request: ReportRequest) -> RunGroup:
    """Return the one group of the baseline runs."""
    settings = group_runs(runs, "baseline")
    if len(settings) > 1:
        reason = f"it matches {len(settings)} settings: {', '.join(name_groups(settings))}"
        raise ConfigError(request.subject, reason, "narrow it to one, over seeds")
    return settings[0]


def check_comparable(groups: Sequence[RunGroup], baseline: RunGroup) -> None:
    """Refuse to compare runs on different data."""
    for run in (run for setting in (baseline, *groups) for run in setting.runs):
        check_same_data(run, baseline.first)


def make_comparisons(groups: Sequence[RunGroup], baseline: RunGroup, split: str, checkpoint: str) -> list[Comparison]:
    """Return the comparisons, corrected for their number."""
    *own, base = name_groups([*groups, baseline])
    matches = [pair_by_seed(setting, baseline) for setting in groups]
    found = make_verdicts([ComparisonResult.of(one.paired) for one in matches])
    pairs = zip(matches, found, own, strict=True)
    return [Comparison(one, verdict, (name, base), split, checkpoint) for one, verdict, name in pairs]


def write_comparison(comparison: Comparison, allowlist: Allowlist) -> Path:
    """Write the files of a comparison; return their directory."""
    directory, found = get_comparison_directory(comparison), find_flips(comparison.match)
    files = {
        "comparison.txt": f"{comparison_report_text(comparison)}\n\n{comparison.sentence}\n".encode(
            errors="backslashreplace"
        ),
        "comparison.json": format_comparison_json(comparison),
        "per_class.csv": format_per_class_csv(comparison),
        "flips.csv": format_flips_csv(found, comparison.class_names, comparison.verdict.figures.paired.seeds),
    }
    images = load_flip_images(comparison, decisive_flips(found), allowlist)
    if images is not None:
        seeds = comparison.verdict.figures.paired.seeds
        files["flips.png"] = draw_flips(found, images, comparison.class_names, seeds, comparison.names)
    write_comparison_files(comparison, files, directory)
    return directory


def load_flip_images(comparison: Comparison, shown_ones: Sequence[Flip], allowlist: Allowlist) -> Tensor | None:
    """Return the samples as images; None if they are no images, or with a warning if they cannot be loaded."""
    if not shown_ones:
        return None
    try:
        return fetch_flip_images(comparison, shown_ones, allowlist)
    except MicrostepError as error:
        log.warning("flips.png is left out: %s", error)
        return None


def fetch_flip_images(comparison: Comparison, shown_ones: Sequence[Flip], allowlist: Allowlist) -> Tensor | None:
    """Return the samples from the dataset of the baseline.

    Raises:
        MicrostepError: if the data are missing or have changed.
    """
    run = comparison.match.baseline.first.saved
    dataset = build_dataset(run.config(allowlist), torch.device("cpu"), allowlist, num_workers=0)
    run.check_data(dataset.fingerprint)
    split = dataset.splits[comparison.split]
    row_of_index = {index: row for row, index in enumerate(split.indices.tolist())}
    rows = torch.tensor([row_of_index[flip.index] for flip in shown_ones])
    return split.shown(split.fetch(rows, rows).inputs)
