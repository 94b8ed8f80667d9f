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
from microstep.evaluation.comparison.flips import Flip, chosen, flips, flips_csv, flips_picture
from microstep.evaluation.comparison.groups import RunGroup, grouped, match, names
from microstep.evaluation.comparison.output_files import directory_of, numbers, per_class, write
from microstep.evaluation.comparison.results import Figures
from microstep.evaluation.comparison.runs import Asked, ReportedRun, insist_on_same_data, matched, read_run
from microstep.evaluation.comparison.text import Comparison, page, summary
from microstep.evaluation.comparison.verdict import verdicts
from microstep.evaluation.evaluate import report_directory
from microstep.training.builders import build_dataset
from microstep.utils.text import display_path

log = logging.getLogger("microstep.notice")
Gates = Callable[[Sequence[Path]], Allowlist]


@dataclass(frozen=True)
class Compared:
    """Comparisons made together, and the directory of each."""

    comparisons: list[Comparison]
    directories: list[Path]

    @property
    def text(self) -> str:
        """Report text: a page for one comparison, a table for several; the verdicts come last."""
        written = "\n".join(f"  written to {display_path(directory)}" for directory in self.directories)
        said = page(self.comparisons[0]) if len(self.comparisons) == 1 else summary(self.comparisons)
        return "\n\n".join(["", said, written, "\n".join(one.sentence for one in self.comparisons)])


@loader_errors()
def compare(run: str, baseline: str, split: str, checkpoint: str, make_allowlist: Gates) -> Compared:
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
    report = report_directory(Path(), split, checkpoint)
    sides = [Asked(key, value, split, checkpoint, report) for key, value in (("run", run), ("baseline", baseline))]
    found = [matched(side) for side in sides]
    gate = make_allowlist([*found[0], *found[1]])
    base = one_setting([read_run(path, sides[1], gate) for path in found[1]], sides[1])
    ours = without(found[0], found[1], sides[0])
    settings = grouped([read_run(path, sides[0], gate) for path in ours], "run")
    insist(settings, base)
    comparisons = made(settings, base, split, checkpoint)
    return Compared(comparisons, [written(one, gate) for one in comparisons])


def without(paths: Iterable[Path], excluded: Iterable[Path], request: Asked) -> list[Path]:
    """Return the runs that are not in the baseline: a pattern may match these too."""
    away = {path.resolve() for path in excluded}
    left = [path for path in paths if path.resolve() not in away]
    if not left:
        raise ConfigError(request.subject, "it names no run but the baseline's", "name another, to compare with it")
    return left


def one_setting(runs: Sequence[ReportedRun], request: Asked) -> RunGroup:
    """Return the one group of the baseline runs."""
    settings = grouped(runs, "baseline")
    if len(settings) > 1:
        reason = f"it matches {len(settings)} settings: {', '.join(names(settings))}"
        raise ConfigError(request.subject, reason, "narrow it to one, over seeds")
    return settings[0]


def insist(groups: Sequence[RunGroup], baseline: RunGroup) -> None:
    """Refuse to compare runs on different data."""
    for run in (run for setting in (baseline, *groups) for run in setting.runs):
        insist_on_same_data(run, baseline.first)


def made(groups: Sequence[RunGroup], baseline: RunGroup, split: str, checkpoint: str) -> list[Comparison]:
    """Return the comparisons, corrected for their number."""
    *own, base = names([*groups, baseline])
    matches = [match(setting, baseline) for setting in groups]
    found = verdicts([Figures.of(one.paired) for one in matches])
    pairs = zip(matches, found, own, strict=True)
    return [Comparison(one, verdict, (name, base), split, checkpoint) for one, verdict, name in pairs]


def written(comparison: Comparison, allowlist: Allowlist) -> Path:
    """Write the files of a comparison; return their directory."""
    directory, found = directory_of(comparison), flips(comparison.match)
    files = {
        "comparison.txt": f"{page(comparison)}\n\n{comparison.sentence}\n".encode(errors="backslashreplace"),
        "comparison.json": numbers(comparison),
        "per_class.csv": per_class(comparison),
        "flips.csv": flips_csv(found, comparison.class_names, comparison.verdict.figures.paired.seeds),
    }
    images = pictures(comparison, chosen(found), allowlist)
    if images is not None:
        seeds = comparison.verdict.figures.paired.seeds
        files["flips.png"] = flips_picture(found, images, comparison.class_names, seeds, comparison.names)
    write(comparison, files, directory)
    return directory


def pictures(comparison: Comparison, shown_ones: Sequence[Flip], allowlist: Allowlist) -> Tensor | None:
    """Return the samples as images; None if they are no images, or with a warning if they cannot be loaded."""
    if not shown_ones:
        return None
    try:
        return fetched(comparison, shown_ones, allowlist)
    except MicrostepError as error:
        log.warning("flips.png is left out: %s", error)
        return None


def fetched(comparison: Comparison, shown_ones: Sequence[Flip], allowlist: Allowlist) -> Tensor | None:
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
