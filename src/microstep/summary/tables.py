"""The tables of a summary."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from microstep.summary.document import NONE, Cell, Table, Verbatim, counted, figure, signed, size, spread, whole
from microstep.summary.effects import Effect
from microstep.summary.reading import Run
from microstep.summary.study import Sample, Setting, Study

FOLDED = 30  #: runs beyond which a page shows their table on demand


def leaderboard(study: Study) -> Table:
    """Return the settings, the best first."""
    rows = tuple(
        (str(rank), Verbatim(s.label), spread(s.val), spread(s.test), str(len(s.runs)))
        for rank, s in enumerate(study.settings, 1)
    )
    header = ("rank", "setting", f"val {study.monitor}", f"test {study.monitor}", "runs")
    caption = (
        f"Settings by their mean validation {study.monitor}, {better(study)}. ± is the sample standard deviation "
        "over a setting's runs (n − 1); one run has none. Test is of the same checkpoints, shown and never ranked on."
    )
    return Table(caption, header, rows)


def better(study: Study) -> str:
    """Return which way is up."""
    return "the higher the better" if study.direction == "max" else "the lower the better"


def effects_table(effects: Sequence[Effect], study: Study) -> Table:
    """Return the mean at each value of each swept key, and by how much it differs from the first."""
    rows = tuple(row for effect in effects if effect.matches for row in effect_rows(effect))
    header = ("key", "value", f"mean val {study.monitor}", "difference", "pairs")
    caption = (
        f"Mean validation {study.monitor} at each value of a swept key, over runs matched in all other keys, and the "
        "mean difference from the key's first value, pair by pair, ± the standard deviation of the pairs' differences."
    )
    return Table(caption, header, rows)


def effect_rows(effect: Effect) -> list[tuple[Cell, ...]]:
    """Return a key's rows."""
    rows: list[tuple[Cell, ...]] = []
    for place, level in enumerate(effect.levels):
        difference = effect.difference(place)
        apart = spread(difference, signed(difference.mean)) if place else NONE
        mean = figure(effect.at(place).mean)
        rows.append((Verbatim(effect.key), Verbatim(level), mean, apart, str(len(effect.matches))))
    return rows


def costs(study: Study) -> Table:
    """Return what each setting costs beside what it reaches."""
    header = ("rank", "setting", f"val {study.monitor}", "samples/s", "training seconds", "peak memory")
    caption = (
        "Means over a setting's finished runs: speed is training alone, in the last epoch; seconds are of training and "
        "validation; memory is the process's, or the GPU's where one was used. Jobs that ran side by side slow each "
        "other down."
    )
    return Table(caption, header, tuple(cost(rank, s) for rank, s in enumerate(study.settings, 1)))


def cost(rank: int, setting: Setting) -> tuple[Cell, ...]:
    """Return a setting's row."""
    facts: tuple[tuple[str, Callable[[float | None], str]], ...] = (
        ("samples_per_second", whole),
        ("train_seconds", whole),
        ("peak_memory_bytes", size),
    )
    shown = (written(mean_of(setting.sample(fact))) for fact, written in facts)
    return (str(rank), Verbatim(setting.label), spread(setting.val), *shown)


def mean_of(sample: Sample | None) -> float | None:
    return None if sample is None else sample.mean


def every_run(study: Study) -> Table:
    """Return all runs, as the sweep names them."""
    header = ("run", "status", "epoch", f"val {study.monitor}".strip(), f"test {study.monitor}".strip(), "seconds")
    caption = (
        "Every run of the sweep. Metrics are of its best checkpoint by validation; summary.csv has all of them, "
        "with every digit."
    )
    rows = tuple(run_row(run, study.monitor) for run in study.runs)
    return Table(caption, header, rows, folded=len(rows) > FOLDED)


def run_row(run: Run, monitor: str) -> tuple[Cell, ...]:
    """Return a run's row."""
    epochs = [f"{value:,.0f}" for name in ("epoch", "epochs") if (value := run.number(name)) is not None]
    metrics = (figure(run.metrics(split).get(monitor)) for split in ("val", "test"))
    return (Verbatim(run.name), run.status, " of ".join(epochs) or NONE, *metrics, whole(run.number("train_seconds")))


def missing(study: Study) -> Table:
    """Return the runs without a result that counts, and why."""
    runs = [run for run in study.runs if not run.finished]
    caption = f"{counted(len(runs), 'run')} without a result that counts, and what each said of itself."
    rows = tuple((Verbatim(run.name), run.status, Verbatim(run.error)) for run in runs)
    return Table(caption, ("run", "status", "why"), rows, wrapping=True)
