"""A comparison as the terminal and comparison.txt show it; the sentence comes last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from microstep.errors import escape_unprintable
from microstep.evaluation.comparison.groups import GroupPair, find_brief_differences
from microstep.evaluation.comparison.results import ClassComparison, ScoreComparison
from microstep.evaluation.comparison.verdict import Verdict, format_interval, format_p_value, format_points
from microstep.utils.tables import format_table
from microstep.utils.text import display_path, format_percent, truncate_middle

MAX_DIFFERENCES_SHOWN = 6  #: keys in which settings differ; all are in comparison.json
MAX_CLASSES_SHOWN = 5  #: that changed most; all are in per_class.csv
MAX_SEEDS_SHOWN = 10  #: told one by one
TABLE_NAME_LETTERS = 40  #: of a name in a table


@dataclass(frozen=True)
class Comparison:
    """One setting compared with the baseline."""

    match: GroupPair
    verdict: Verdict
    names: tuple[str, str]  #: of run and baseline
    split: str
    checkpoint: str

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.match.baseline.first.report.class_names

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        run, baseline = map(escape_unprintable, self.names)
        return self.verdict.sentence(run, baseline)


def comparison_report_text(comparison: Comparison) -> str:
    """Return all that is shown of one comparison but the sentence."""
    rows = [["", ""], *comparison_rows(comparison), *format_test_rows(comparison)]
    facts_and_tests = format_table(rows, "<")[1:]
    middle = len(comparison_rows(comparison))
    blocks = [
        facts_and_tests[:middle],
        format_scores(comparison),
        facts_and_tests[middle:],
        format_changed_classes(comparison),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def comparison_rows(comparison: Comparison) -> list[list[str]]:
    paired = comparison.verdict.figures.paired
    extent = (
        f"{paired.samples:,} samples of {comparison.split}, {paired.classes:,} classes; {comparison.checkpoint} weights"
    )
    return [
        ["run", format_name_and_directory(comparison.names[0], [run.directory for run in comparison.match.run.runs])],
        [
            "baseline",
            format_name_and_directory(comparison.names[1], [run.directory for run in comparison.match.baseline.runs]),
        ],
        ["they differ in", format_differing_settings(comparison)],
        ["compared on", f"{extent}; {format_seeds(comparison)}"],
    ]


def format_name_and_directory(name: str, directories: Sequence[Path]) -> str:
    """Return a name with the directory it stands for, or the first of several."""
    more = f" and {len(directories) - 1} more" if len(directories) > 1 else ""
    directory_text = escape_unprintable(display_path(directories[0]))
    return (
        f"{directory_text}{more}"
        if directory_text == name and not more
        else f"{escape_unprintable(name)}: {directory_text}{more}"
    )


def format_differing_settings(comparison: Comparison) -> str:
    """Return what the two were told differently, in one line."""
    pairs = find_brief_differences(comparison.match.run, comparison.match.baseline).items()
    found = [(key, *(truncate_middle(value, TABLE_NAME_LETTERS) for value in pair)) for key, pair in pairs]
    cells = [f"{key} {run}, not {other}" for key, run, other in found[:MAX_DIFFERENCES_SHOWN]]
    more = [f"{len(found) - MAX_DIFFERENCES_SHOWN} more keys"] if len(found) > MAX_DIFFERENCES_SHOWN else []
    return escape_unprintable("; ".join([*cells, *more])) or "nothing but the seed"


def format_seeds(comparison: Comparison) -> str:
    """Return the seeds, and what one alone can't tell."""
    run, baseline = comparison.match.run.seeds, comparison.match.baseline.seeds
    if len(run) > 1:
        return f"seeds {', '.join(map(str, run))}"
    which = f"seed {run[0]}" if run == baseline else f"seeds {run[0]} and {baseline[0]}"
    return f"{which}, which says nothing of other seeds"


def format_scores(comparison: Comparison) -> list[str]:
    """Return both scores and the difference in each."""
    found = comparison.verdict.figures
    head = ["", "run", "baseline", "difference", "95 % interval"]
    return format_table(
        [head, format_score_row("accuracy", found.accuracy), format_score_row("macro F1", found.macro_f1)], "<>"
    )


def format_score_row(name: str, score: ScoreComparison) -> list[str]:
    ends_of_it = format_interval(score.low, score.high)
    return [
        name,
        format_percent(score.run),
        format_percent(score.baseline),
        format_points(score.difference),
        ends_of_it,
    ]


def format_test_rows(comparison: Comparison) -> list[list[str]]:
    """Return who alone is right, seed by seed, with the exact test; what decides; what could have shown."""
    found, several = comparison.verdict.figures, comparison.verdict.figures.paired.seeds > 1
    rows = []
    for seed, (run, baseline, p) in list(zip(comparison.match.run.seeds, found.by_seed, strict=True))[:MAX_SEEDS_SHOWN]:
        label = f"right alone{f', seed {seed}' if several else ''}"
        sides = f"{run:,} with the run, {baseline:,} with the baseline"
        rows.append([label, f"{sides}: {format_p_value(p)} (McNemar's exact test)"])
    if several:
        rows.append(["over seeds, samples", format_p_value(found.p_value)])
    if comparison.verdict.comparisons > 1:
        rows.append(
            [
                f"of {comparison.verdict.comparisons} comparisons",
                f"{format_p_value(comparison.verdict.p_value)} (Holm's correction)",
            ]
        )
    return [*rows, ["could have shown", comparison.verdict.least]]


def format_changed_classes(comparison: Comparison) -> list[str]:
    """Return the classes on which most samples changed sides, if any did."""
    changed = [found for found in comparison.verdict.figures.classes if found.only_run != found.only_baseline]
    changed.sort(key=lambda found: -abs(found.only_run - found.only_baseline))
    head = ["classes that differ most", "samples", "recall", "baseline", "difference", "F1", "baseline", "difference"]
    rows = [format_class_row(comparison, found) for found in changed[:MAX_CLASSES_SHOWN]]
    return format_table([[*head, "p, corrected"], *rows], "<>") if rows else []


def format_class_row(comparison: Comparison, result: ClassComparison) -> list[str]:
    pairs = (cell for pair in (result.recall, result.f1) for cell in iter_pair_cells(pair))
    name = truncate_middle(comparison.class_names[result.label], TABLE_NAME_LETTERS)
    return [name, f"{result.samples:,}", *pairs, format_p_value(result.p_value).removeprefix("p ").removeprefix("= ")]


def iter_pair_cells(pair: tuple[float, float]) -> Iterator[str]:
    """Yield a score of both, and the difference."""
    yield from map(format_percent, pair)
    yield format_points(pair[0] - pair[1])


def format_comparison_summary(comparisons: Sequence[Comparison]) -> str:
    """Return a table of several settings, each compared with the same baseline."""
    head = ["", "accuracy", "macro F1", "difference", "95 % interval", "p", "corrected"]
    found = comparisons[0].verdict.figures
    baseline = [truncate_middle(comparisons[0].names[1], TABLE_NAME_LETTERS), format_percent(found.accuracy.baseline)]
    rows = [[*baseline, format_percent(found.macro_f1.baseline), "", "", "", ""], *map(format_summary_row, comparisons)]
    return "\n".join(format_table([head, *rows], "<>"))


def format_summary_row(comparison: Comparison) -> list[str]:
    found, score = comparison.verdict.figures, comparison.verdict.figures.accuracy
    p_values = (
        format_p_value(p).removeprefix("p ").removeprefix("= ") for p in (found.p_value, comparison.verdict.p_value)
    )
    told = [format_points(score.difference), format_interval(score.low, score.high)]
    scores = map(format_percent, (score.run, found.macro_f1.run))
    return [truncate_middle(comparison.names[0], TABLE_NAME_LETTERS), *scores, *told, *p_values]
