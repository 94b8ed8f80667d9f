"""summary.csv: a row a run, numbers with every digit."""

from __future__ import annotations

import csv
import io

from microstep.summary.reading import Run
from microstep.summary.study import NUMBER, Study

FACTS = ("train_seconds", "samples_per_second", "peak_memory_bytes", "effective_batch_size")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  #: what a spreadsheet takes for the beginning of one


def csv_of(study: Study) -> str:
    """Return the whole table; its columns are those that any run has."""
    rows = [row_of(run, study) for run in study.runs]
    metrics = dict.fromkeys(
        f"{split}_{name}" for split in ("val", "test") for r in study.runs for name in r.metrics(split)
    )
    header = dict.fromkeys(("run", "status", *study.keys, "epoch", "best_epoch", *metrics, *FACTS, "error"))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(map(guarded, header))
    writer.writerows([row.get(name, "") for name in header] for row in rows)
    return stream.getvalue()


def row_of(run: Run, study: Study) -> dict[str, str]:
    """Return a run's cells by column."""
    best = run.metrics("best").get("epoch")
    found = {"epoch": run.number("epoch"), "best_epoch": best, **{fact: run.number(fact) for fact in FACTS}}
    found |= {f"{split}_{name}": value for split in ("val", "test") for name, value in run.metrics(split).items()}
    numbers = {name: repr(value) for name, value in found.items() if value is not None}
    swept = dict(zip(study.keys, map(guarded, study.rows[run.name]), strict=True))
    return swept | numbers | {"run": guarded(run.name), "status": run.status, "error": guarded(run.error)}


def guarded(text: str) -> str:
    """Return a text that a spreadsheet takes for one: an apostrophe stands before what would begin a formula."""
    return f"'{text}" if text.startswith(FORMULA) and not NUMBER.fullmatch(text) else text
