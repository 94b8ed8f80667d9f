"""Write summary.csv: a row per run, numbers with every digit."""

from __future__ import annotations

from microstep.summary.reading import SweepRun
from microstep.summary.study import NUMBER, SweepTable
from microstep.utils.tables import csv_bytes

SPLITS = ("val", "test")
FACTS = ("train_seconds", "samples_per_second", "peak_memory_bytes", "effective_batch_size")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  #: first characters of a spreadsheet's formula


def csv_of(sweep: SweepTable) -> bytes:
    """Return the table as CSV, with a column for each metric that any run has."""
    metrics = (f"{split}_{name}" for split in SPLITS for run in sweep.runs for name in run.metrics(split))
    header = dict.fromkeys(("run", "status", *sweep.keys, "epoch", "best_epoch", *metrics, *FACTS, "error"))
    cells = ([row.get(name, "") for name in header] for row in (row_of(run, sweep) for run in sweep.runs))
    return csv_bytes([map(guarded, header), *cells], newline="\n")


def row_of(run: SweepRun, sweep: SweepTable) -> dict[str, str]:
    """Return a run's cells by column."""
    found = {"epoch": run.number("epoch"), "best_epoch": run.metrics("best").get("epoch")}
    found |= {fact: run.number(fact) for fact in FACTS}
    found |= {f"{split}_{name}": value for split in SPLITS for name, value in run.metrics(split).items()}
    numbers = {name: repr(value) for name, value in found.items() if value is not None}
    swept = {key: guarded(value) for key, value in sweep.rows[run.name].items()}
    return swept | numbers | {"run": guarded(run.name), "status": run.status, "error": guarded(run.error)}


def guarded(text: str) -> str:
    """Return a text with an apostrophe before it if a spreadsheet would compute it as a formula."""
    return f"'{text}" if text.startswith(FORMULA) and not NUMBER.fullmatch(text) else text
