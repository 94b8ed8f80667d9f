"""Tables of the summary, and the rows of summary.csv."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from microstep.sweep.summary.best import LEVEL, UNDECIDED, compare_with_best
from microstep.sweep.summary.effects import MainEffect
from microstep.sweep.summary.reading import SweepRun
from microstep.sweep.summary.study import NUMBER_PATTERN, RunGroup, Sample, SweepTable
from microstep.utils.tables import csv_bytes
from microstep.utils.text import format_count

MISSING = "–"  #: stands for a missing number
SPLITS = ("val", "test")
COST_NAMES = ("samples_per_second", "train_seconds", "peak_memory_bytes")
CSV_NUMBERS = ("train_seconds", "samples_per_second", "peak_memory_bytes", "effective_batch_size")
FORMULA_PREFIXES = ("=", "+", "-", "@", "\t", "\r")  #: first characters of a spreadsheet's formula


class Code(str):
    """A cell with a name, a value or an error, which is shown as code."""


@dataclass(frozen=True)
class Table:
    """Rows of cells under a header, with a caption."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def make_leaderboard_table(sweep: SweepTable) -> Table:
    caption = (
        f"Settings by their mean validation {sweep.monitor}, {format_better_direction(sweep)}. "
        "± is the sample standard deviation over a setting's runs (n − 1); one run has none. "
        "Test is of the same checkpoints, shown and never ranked on."
    )
    words = compare_with_best(sweep)
    level = f"{LEVEL} / {len(words) - 1}" if len(words) > 2 else LEVEL
    marked = any(word != MISSING for word in words[1:])
    caption += (
        f" {UNDECIDED.capitalize()}: not told apart from the best by one-sided paired t tests over common seeds or "
        f"folds, at the level {level}. {MISSING}: fewer than two in common, not tested."
    ) * marked
    header = ("rank", "setting", f"val {sweep.monitor}", f"test {sweep.monitor}", "runs", *(["compared"] * marked))
    rows = tuple(
        (*make_leaderboard_row(rank, group), *([word] * marked))
        for rank, (group, word) in enumerate(zip(sweep.groups, words, strict=True), 1)
    )
    return Table(caption, header, rows)


def make_leaderboard_row(rank: int, group: RunGroup) -> tuple[str, ...]:
    return str(rank), Code(group.label), format_sample(group.val), format_sample(group.test), str(len(group.runs))


def format_better_direction(sweep: SweepTable) -> str:
    return "the higher the better" if sweep.direction == "max" else "the lower the better"


def make_effects_table(effects: Sequence[MainEffect], sweep: SweepTable) -> Table:
    caption = (
        f"Mean validation {sweep.monitor} at each value of a swept key, over runs matched in all other keys, and the "
        "mean difference from the key's first value, pair by pair, ± the standard deviation of the pairs' differences."
    )
    header = ("key", "value", f"mean val {sweep.monitor}", "difference", "pairs")
    return Table(caption, header, tuple(row for effect in effects for row in make_effect_rows(effect)))


def make_effect_rows(effect: MainEffect) -> Iterator[tuple[str, ...]]:
    for index, level in enumerate(effect.levels if effect.matches else ()):
        sample = effect.difference_at(index)
        text = f"{'+' if sample.mean >= 0 else '−'}{format_number(abs(sample.mean))}"  # the minus is U+2212
        difference = format_sample(sample, text) if index else MISSING
        mean = format_number(effect.sample_at(index).mean)
        yield Code(effect.key), Code(level), mean, difference, str(len(effect.matches))


def make_costs_table(sweep: SweepTable) -> Table:
    caption = (
        "Means over a setting's finished runs: speed is training alone, in the last epoch; seconds are of training and "
        "validation; memory is the process's, or the GPU's where one was used. Jobs that ran side by side slow each "
        "other down."
    )
    header = ("rank", "setting", f"val {sweep.monitor}", "samples/s", "training seconds", "peak memory")
    return Table(caption, header, tuple(make_cost_row(rank, group) for rank, group in enumerate(sweep.groups, 1)))


def make_cost_row(rank: int, group: RunGroup) -> tuple[str, ...]:
    samples = [group.get_sample(name) for name in COST_NAMES]
    speed, seconds, memory = (None if sample is None else sample.mean for sample in samples)
    costs = (format_rounded(speed), format_rounded(seconds), format_bytes(memory))
    return str(rank), Code(group.label), format_sample(group.val), *costs


def make_failures_table(runs: Sequence[SweepRun]) -> Table:
    caption = f"{format_count(len(runs), 'run')} without a result that counts, with the reason."
    rows = tuple((Code(run.name), run.status, Code(run.error)) for run in runs)
    return Table(caption, ("run", "status", "why"), rows)


def make_all_runs_table(sweep: SweepTable) -> Table:
    caption = (
        "Every run of the sweep. Metrics are of its best checkpoint by validation; summary.csv has all of them, "
        "with every digit."
    )
    metrics = (f"{split} {sweep.monitor}".strip() for split in SPLITS)
    header = ("run", "status", "epoch", *metrics, "seconds")
    return Table(caption, header, tuple(make_run_row(run, sweep.monitor) for run in sweep.runs))


def make_run_row(run: SweepRun, monitor: str) -> tuple[str, ...]:
    epochs = [f"{value:,.0f}" for name in ("epoch", "epochs") if (value := run.record.numbers.get(name)) is not None]
    metrics = (format_number(run.get_metrics(split).get(monitor)) for split in SPLITS)
    seconds = format_rounded(run.record.numbers.get("train_seconds"))
    stopped = ", stopped" if run.record.stopped else ""
    return Code(run.name), run.status, (" of ".join(epochs) or MISSING) + stopped, *metrics, seconds


def format_summary_csv(sweep: SweepTable) -> bytes:
    metrics = (f"{split}_{name}" for split in SPLITS for run in sweep.runs for name in run.get_metrics(split))
    header = dict.fromkeys(("run", "status", *sweep.keys, "epoch", "best_epoch", *metrics, *CSV_NUMBERS, "error"))
    rows = [make_csv_row(run, sweep) for run in sweep.runs]
    cells = [[row.get(name, "") for name in header] for row in rows]
    return csv_bytes([map(escape_formula, header), *cells], newline="\n")


def make_csv_row(run: SweepRun, sweep: SweepTable) -> dict[str, str]:
    values = {"epoch": run.record.numbers.get("epoch"), "best_epoch": run.get_metrics("best").get("epoch")}
    values |= {name: run.record.numbers.get(name) for name in CSV_NUMBERS}
    values |= {f"{split}_{name}": value for split in SPLITS for name, value in run.get_metrics(split).items()}
    numbers = {name: repr(value) for name, value in values.items() if value is not None}
    swept = {key: escape_formula(value) for key, value in sweep.rows[run.name].items()}
    return swept | numbers | {"run": escape_formula(run.name), "status": run.status, "error": escape_formula(run.error)}


def escape_formula(text: str) -> str:
    """Return a text with an apostrophe before it if a spreadsheet would compute it as a formula."""
    return f"'{text}" if text.startswith(FORMULA_PREFIXES) and not NUMBER_PATTERN.fullmatch(text) else text


def format_number(value: float | None) -> str:
    if value is None:
        return MISSING
    magnitude = abs(value)
    if magnitude >= 1e7 or 0 < magnitude < 5e-5:
        return f"{value:.2e}"
    return f"{value:.4f}" if magnitude < 100 else f"{value:,.1f}"


def format_sample(sample: Sample | None, mean: str = "") -> str:
    """Return mean ± standard deviation, or the mean alone if there is one number; `mean` replaces its text."""
    if sample is None:
        return MISSING
    mean = mean or format_number(sample.mean)
    return mean if sample.std is None else f"{mean} ± {format_number(sample.std)}"


def format_rounded(value: float | None) -> str:
    return MISSING if value is None else f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.1f}"


def format_bytes(value: float | None) -> str:
    if value is None:
        return MISSING
    return f"{value / 2**30:,.2f} GiB" if value >= 2**30 else f"{value / 2**20:,.0f} MiB"
