"""Tables of the summary, and the rows of summary.csv."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from microstep.sweep.summary.effects import MainEffect
from microstep.sweep.summary.formatting import NONE, counted, figure, signed, size, spread, whole
from microstep.sweep.summary.reading import SweepRun
from microstep.sweep.summary.study import NUMBER_PATTERN, RunGroup, Sample, SweepTable
from microstep.utils.tables import csv_bytes


class Code(str):
    """A cell that holds a name, a value or an error, and is set as code."""


@dataclass(frozen=True)
class Table:
    """Rows of cells under a header, with a caption."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def make_leaderboard_table(sweep: SweepTable) -> Table:
    """Return the settings, the best first."""
    caption = (
        f"Settings by their mean validation {sweep.monitor}, {format_better_direction(sweep)}. "
        "± is the sample standard deviation over a setting's runs (n − 1); one run has none. "
        "Test is of the same checkpoints, shown and never ranked on."
    )
    header = ("rank", "setting", f"val {sweep.monitor}", f"test {sweep.monitor}", "runs")
    rows = tuple(
        (str(rank), Code(s.label), spread(s.val), spread(s.test), str(len(s.runs)))
        for rank, s in enumerate(sweep.settings, 1)
    )
    return Table(caption, header, rows)


def format_better_direction(sweep: SweepTable) -> str:
    return "the higher the better" if sweep.direction == "max" else "the lower the better"


def make_effects_table(effects: Sequence[MainEffect], sweep: SweepTable) -> Table:
    """Return the mean at each value of each swept key, and its difference from the mean at the first value."""
    caption = (
        f"Mean validation {sweep.monitor} at each value of a swept key, over runs matched in all other keys, and the "
        "mean difference from the key's first value, pair by pair, ± the standard deviation of the pairs' differences."
    )
    header = ("key", "value", f"mean val {sweep.monitor}", "difference", "pairs")
    return Table(
        caption, header, tuple(row for effect in effects if effect.matches for row in make_effect_rows(effect))
    )


def make_effect_rows(effect: MainEffect) -> Iterator[tuple[str, ...]]:
    for index, level in enumerate(effect.levels):
        difference = effect.difference(index)
        apart = spread(difference, signed(difference.mean)) if index else NONE
        mean = figure(effect.at(index).mean)
        yield Code(effect.key), Code(level), mean, apart, str(len(effect.matches))


def make_costs_table(sweep: SweepTable) -> Table:
    """Return the speed, time and memory of each setting."""
    caption = (
        "Means over a setting's finished runs: speed is training alone, in the last epoch; seconds are of training and "
        "validation; memory is the process's, or the GPU's where one was used. Jobs that ran side by side slow each "
        "other down."
    )
    header = ("rank", "setting", f"val {sweep.monitor}", "samples/s", "training seconds", "peak memory")
    return Table(caption, header, tuple(cost_row(rank, s) for rank, s in enumerate(sweep.settings, 1)))


def cost_row(rank: int, setting: RunGroup) -> tuple[str, ...]:
    speed, seconds, memory = (
        get_mean(setting.sample(fact)) for fact in ("samples_per_second", "train_seconds", "peak_memory_bytes")
    )
    return str(rank), Code(setting.label), spread(setting.val), whole(speed), whole(seconds), size(memory)


def get_mean(sample: Sample | None) -> float | None:
    return None if sample is None else sample.mean


def failures(runs: Sequence[SweepRun]) -> Table:
    """Return runs without a result that counts, and why."""
    caption = f"{counted(len(runs), 'run')} without a result that counts, and what each said of itself."
    rows = tuple((Code(run.name), run.status, Code(run.error)) for run in runs)
    return Table(caption, ("run", "status", "why"), rows)


def make_all_runs_table(sweep: SweepTable) -> Table:
    """Return all runs, in the sweep's order."""
    caption = (
        "Every run of the sweep. Metrics are of its best checkpoint by validation; summary.csv has all of them, "
        "with every digit."
    )
    metrics = (f"{split} {sweep.monitor}".strip() for split in ("val", "test"))
    header = ("run", "status", "epoch", *metrics, "seconds")
    return Table(caption, header, tuple(make_run_row(run, sweep.monitor) for run in sweep.runs))


def make_run_row(run: SweepRun, monitor: str) -> tuple[str, ...]:
    epochs = [f"{value:,.0f}" for name in ("epoch", "epochs") if (value := run.number(name)) is not None]
    metrics = (figure(run.metrics(split).get(monitor)) for split in ("val", "test"))
    return Code(run.name), run.status, " of ".join(epochs) or NONE, *metrics, whole(run.number("train_seconds"))


SPLITS = ("val", "test")
CSV_FACTS = ("train_seconds", "samples_per_second", "peak_memory_bytes", "effective_batch_size")
FORMULA_PREFIXES = ("=", "+", "-", "@", "\t", "\r")  #: first characters of a spreadsheet's formula


def format_summary_csv(sweep: SweepTable) -> bytes:
    """Return the table as CSV, with a column for each metric that any run has."""
    metrics = (f"{split}_{name}" for split in SPLITS for run in sweep.runs for name in run.metrics(split))
    header = dict.fromkeys(("run", "status", *sweep.keys, "epoch", "best_epoch", *metrics, *CSV_FACTS, "error"))
    cells = ([row.get(name, "") for name in header] for row in (make_csv_row(run, sweep) for run in sweep.runs))
    return csv_bytes([map(escape_formula, header), *cells], newline="\n")


def make_csv_row(run: SweepRun, sweep: SweepTable) -> dict[str, str]:
    """Return a run's cells by column."""
    found = {"epoch": run.number("epoch"), "best_epoch": run.metrics("best").get("epoch")}
    found |= {fact: run.number(fact) for fact in CSV_FACTS}
    found |= {f"{split}_{name}": value for split in SPLITS for name, value in run.metrics(split).items()}
    numbers = {name: repr(value) for name, value in found.items() if value is not None}
    swept = {key: escape_formula(value) for key, value in sweep.rows[run.name].items()}
    return swept | numbers | {"run": escape_formula(run.name), "status": run.status, "error": escape_formula(run.error)}


def escape_formula(text: str) -> str:
    """Return a text with an apostrophe before it if a spreadsheet would compute it as a formula."""
    return f"'{text}" if text.startswith(FORMULA_PREFIXES) and not NUMBER_PATTERN.fullmatch(text) else text
