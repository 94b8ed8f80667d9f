"""Compares saved runs from their directories."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from microstep.components.dataset.loader_processes import loader_errors
from microstep.config.allowlist import Allowlist
from microstep.errors import ConfigError, MicrostepError
from microstep.evaluation.comparison import output_files
from microstep.evaluation.comparison.flips import Flip, decisive_flips, draw_flips, find_flips, format_flips_csv
from microstep.evaluation.comparison.groups import RunGroup, group_runs, pair_by_seed
from microstep.evaluation.comparison.names import name_groups
from microstep.evaluation.comparison.results import ComparisonResult
from microstep.evaluation.comparison.runs import ReportRequest, check_same_data, find_run_directories, read_compared_run
from microstep.evaluation.comparison.text import Comparison, comparison_report_text, format_comparison_summary
from microstep.evaluation.comparison.verdict import make_verdicts
from microstep.training.builders import build_dataset
from microstep.utils.terminal import print_json
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
        """Full report of one comparison, or a table of several; the verdicts come last."""
        several = len(self.comparisons) > 1
        report = format_comparison_summary(self.comparisons) if several else comparison_report_text(self.comparisons[0])
        directories = "\n".join(f"  written to {display_path(directory)}" for directory in self.directories)
        return "\n\n".join(["", report, directories, "\n".join(one.sentence for one in self.comparisons)])


@loader_errors()
def compare_runs(
    run: str,
    baseline: str,
    split: str,
    checkpoint: str,
    make_allowlist: AllowlistFactory,
    baseline_checkpoint: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> WrittenComparisons:
    """Compare groups of runs, which differ only in their seed, with a baseline group, and write the comparisons.

    Args:
        run, baseline: a run directory, or a pattern that matches several (`outputs/sweeps/s/*`).
        split, checkpoint: those of the reports to compare. `evaluate.py` makes a missing report.
        make_allowlist: returns the allowlist for the configs of some run directories.
        baseline_checkpoint: that of the baseline's reports; None for the same.
        overrides: values to use instead of the runs' own to read the images, by dotted key.

    Raises:
        ConfigError: if runs or reports are missing, `baseline` matches several groups, or the two sides differ in data
            or classes, or have no seed in common.
        DataError: if a report is damaged.
        CheckpointRefused: if a report is missing, and so are the weights to make it.
        StorageError: if the files cannot be written.
    """
    run_request = ReportRequest("run", run, split, checkpoint, overrides)
    baseline_request = ReportRequest("baseline", baseline, split, baseline_checkpoint or checkpoint, overrides)
    run_paths, baseline_paths = find_run_directories(run_request), find_run_directories(baseline_request)
    allowlist = make_allowlist([*run_paths, *baseline_paths])
    baseline_runs = [read_compared_run(path, baseline_request, allowlist) for path in baseline_paths]
    baseline_group = require_one_group(group_runs(baseline_runs, "baseline"), baseline_request)
    if run_request.checkpoint == baseline_request.checkpoint:
        run_paths = exclude_runs(run_paths, baseline_paths, run_request)
    groups = group_runs([read_compared_run(path, run_request, allowlist) for path in run_paths], "run")
    for one in (one for group in (baseline_group, *groups) for one in group.runs):
        check_same_data(one, baseline_group.runs)
    comparisons = make_comparisons(groups, baseline_group, split)
    directories = [write_comparison(one, allowlist) for one in comparisons]
    pairs = zip(map(display_path, directories), comparisons, strict=True)
    print_json({"comparisons": [{"directory": d, **output_files.describe_comparison(one)} for d, one in pairs]})
    return WrittenComparisons(comparisons, directories)


def exclude_runs(paths: Iterable[Path], excluded: Iterable[Path], request: ReportRequest) -> list[Path]:
    resolved = {path.resolve() for path in excluded}
    remaining = [path for path in paths if path.resolve() not in resolved]
    if not remaining:
        raise ConfigError(request.subject, "it names only runs of the baseline", "give another run or checkpoint")
    return remaining


def require_one_group(groups: Sequence[RunGroup], request: ReportRequest) -> RunGroup:
    if len(groups) > 1:
        reason = f"it matches {len(groups)} settings: {', '.join(name_groups(groups))}"
        raise ConfigError(request.subject, reason, "narrow it to one, over seeds")
    return groups[0]


def make_comparisons(groups: Sequence[RunGroup], baseline: RunGroup, split: str) -> list[Comparison]:
    *names, baseline_name = name_groups([*groups, baseline])
    matches = [pair_by_seed(group, baseline) for group in groups]
    verdicts = make_verdicts([ComparisonResult.from_paired(match.paired) for match in matches])
    rows = zip(matches, verdicts, names, strict=True)
    return [Comparison(match, verdict, (name, baseline_name), split) for match, verdict, name in rows]


def write_comparison(comparison: Comparison, allowlist: Allowlist) -> Path:
    directory = output_files.get_comparison_directory(comparison)
    text = f"{comparison_report_text(comparison)}\n\n{comparison.sentence}\n"
    files = {
        "comparison.txt": text.encode(errors="backslashreplace"),
        "comparison.json": output_files.format_comparison_json(comparison),
    }
    files |= format_class_files(comparison, allowlist) if comparison.result.macro_f1 else {}
    output_files.write_comparison_files(files, directory)
    return directory


def format_class_files(comparison: Comparison, allowlist: Allowlist) -> dict[str, bytes]:
    """Return the files of a comparison that need predicted classes."""
    class_names, seeds, flips = comparison.class_names, comparison.result.paired.seeds, find_flips(comparison.match)
    files = {
        "per_class.csv": output_files.format_per_class_csv(comparison),
        "flips.csv": format_flips_csv(flips, class_names, seeds),
    }
    if flips and (images := fetch_flip_images(comparison, decisive_flips(flips), allowlist)) is not None:
        files["flips.png"] = draw_flips(flips, images, class_names, seeds, comparison.names)
    return files


def fetch_flip_images(comparison: Comparison, flips: Sequence[Flip], allowlist: Allowlist) -> Tensor | None:
    """Return the samples as images; None if they are no images, or with a warning if their data have changed."""
    run = comparison.match.baseline.first.saved
    try:
        dataset = build_dataset(run.config(allowlist), torch.device("cpu"), allowlist, num_workers=0)
        run.check_data(dataset.fingerprint)
        folds = comparison.result.paired.folds
        names = ["val", "train"] if folds and folds.pooled else [comparison.split]  # other folds are training samples
        splits = [dataset.splits[name] for name in names]
        rows = {index: (split, row) for split in splits for row, index in enumerate(split.indices.tolist())}
        found = [(split, torch.tensor([row])) for split, row in (rows[flip.index] for flip in flips)]
        return splits[0].to_images(torch.cat([split.fetch(row, row).inputs for split, row in found]))
    except MicrostepError as error:
        log.warning("flips.png is left out: %s", error)
        return None
