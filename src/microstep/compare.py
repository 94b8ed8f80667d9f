"""Comparison of runs that are over, from their directories alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from microstep.again import report_directory
from microstep.build import build_dataset
from microstep.comparison.figures import Figures
from microstep.comparison.flips import Flip, flips, flips_csv
from microstep.comparison.flips_picture import chosen, flips_picture
from microstep.comparison.record import directory_of, numbers, per_class, write
from microstep.comparison.runs import Asked, Run, insist_on_same_data, matched, read_run
from microstep.comparison.settings import Setting, grouped, match, names
from microstep.comparison.text import Comparison, page, summary
from microstep.comparison.verdict import verdicts
from microstep.dataset.workers import explained
from microstep.errors import ConfigError, MicrostepError
from microstep.files import shown
from microstep.gate import Gate
from microstep.run_config import run_config

log = logging.getLogger("microstep.notice")
Gates = Callable[[Sequence[Path]], Gate]


@dataclass(frozen=True)
class Compared:
    """Comparisons made together, and where each is written."""

    comparisons: list[Comparison]
    directories: list[Path]

    @property
    def text(self) -> str:
        """What is said of them: a page of one, a table of several; the sentences come last."""
        written = "\n".join(f"  written to {shown(directory)}" for directory in self.directories)
        said = page(self.comparisons[0]) if len(self.comparisons) == 1 else summary(self.comparisons)
        return "\n\n".join(["", said, written, "\n".join(one.sentence for one in self.comparisons)])


@explained()
def compare(run: str, baseline: str, split: str, checkpoint: str, gates: Gates) -> Compared:
    """Compare the settings that `run` names with the one that `baseline` does, and write what is found.

    Args:
        run, baseline: a run directory each, or a pattern that matches several (`outputs/sweeps/s/*`).
        split, checkpoint: whose reports are compared; `evaluate.py` makes what is missing.
        gates: makes the gate that says what the runs' configs may name.

    Raises:
        ConfigError: where there are no such runs or reports, `baseline` is several settings, or the two sides have
            different data, classes, or seeds.
        DataError: where a report is damaged.
        StorageError: where nothing can be written.
    """
    report = report_directory(Path(), split, checkpoint)
    sides = [Asked(key, value, split, checkpoint, report) for key, value in (("run", run), ("baseline", baseline))]
    found = [matched(side) for side in sides]
    gate = gates([*found[0], *found[1]])
    base = one_setting([read_run(path, sides[1], gate) for path in found[1]], sides[1])
    ours = without(found[0], found[1], sides[0])
    settings = grouped([read_run(path, sides[0], gate) for path in ours], "run")
    insist(settings, base)
    comparisons = made(settings, base, split, checkpoint)
    return Compared(comparisons, [written(one, gate) for one in comparisons])


def without(paths: Iterable[Path], others: Iterable[Path], asked: Asked) -> list[Path]:
    """Return the runs that are not among the baseline's: a pattern may match these too."""
    away = {path.resolve() for path in others}
    left = [path for path in paths if path.resolve() not in away]
    if not left:
        raise ConfigError(asked.subject, "it names no run but the baseline's", "name another, to compare with it")
    return left


def one_setting(runs: Sequence[Run], asked: Asked) -> Setting:
    """Return the baseline."""
    settings = grouped(runs, "baseline")
    if len(settings) > 1:
        reason = f"it matches {len(settings)} settings: {', '.join(names(settings))}"
        raise ConfigError(asked.subject, reason, "narrow it to one, over seeds")
    return settings[0]


def insist(settings: Sequence[Setting], baseline: Setting) -> None:
    """Refuse to compare what isn't about the same data."""
    for run in (run for setting in (baseline, *settings) for run in setting.runs):
        insist_on_same_data(run, baseline.first)


def made(settings: Sequence[Setting], baseline: Setting, split: str, checkpoint: str) -> list[Comparison]:
    """Return the comparisons, corrected for being several."""
    *own, base = names([*settings, baseline])
    matches = [match(setting, baseline) for setting in settings]
    found = verdicts([Figures.of(one.paired) for one in matches])
    pairs = zip(matches, found, own, strict=True)
    return [Comparison(one, verdict, (name, base), split, checkpoint) for one, verdict, name in pairs]


def written(one: Comparison, gate: Gate) -> Path:
    """Write a comparison's files; return their directory."""
    directory, found = directory_of(one), flips(one.match)
    files = {
        "comparison.txt": f"{page(one)}\n\n{one.sentence}\n".encode(errors="backslashreplace"),
        "comparison.json": numbers(one),
        "per_class.csv": per_class(one),
        "flips.csv": flips_csv(found, one.class_names, one.verdict.figures.paired.seeds),
    }
    images = pictures(one, chosen(found), gate)
    if images is not None:
        seeds = one.verdict.figures.paired.seeds
        files["flips.png"] = flips_picture(found, images, one.class_names, seeds, one.names)
    write(one, files, directory)
    return directory


def pictures(one: Comparison, shown_ones: Sequence[Flip], gate: Gate) -> Tensor | None:
    """Return the samples as pictures; None where they are none, or the data can't be had, which is warned of."""
    if not shown_ones:
        return None
    try:
        return fetched(one, shown_ones, gate)
    except MicrostepError as error:
        log.warning("flips.png is left out: %s", error)
        return None


def fetched(one: Comparison, shown_ones: Sequence[Flip], gate: Gate) -> Tensor | None:
    """Return the samples from the run's data set.

    Raises:
        MicrostepError: where the data are missing, or no longer what they were.
    """
    run = one.match.baseline.first
    config = run_config(run.directory, gate)
    dataset = build_dataset(config, torch.device("cpu"), gate, num_workers=0)
    if dataset.fingerprint != run.fingerprint:
        raise ConfigError(f"baseline={run.directory}", "the data have changed since the run", "put them back")
    split = dataset.splits[one.split]
    place = {index: row for row, index in enumerate(split.indices.tolist())}
    rows = torch.tensor([place[flip.index] for flip in shown_ones])
    return split.shown(split.fetch(rows, rows).inputs)
