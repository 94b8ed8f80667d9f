"""A comparison as the terminal and comparison.txt show it; the sentence comes last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from microstep.errors import escape_unprintable
from microstep.evaluation.comparison.groups import Match, briefly
from microstep.evaluation.comparison.results import ClassFigures, Score
from microstep.evaluation.comparison.verdict import Verdict, ends, p_text, points
from microstep.utils.tables import format_table
from microstep.utils.text import display_path, format_percent, truncate_middle

TOLD = 6  #: keys in which settings differ; all are in comparison.json
CLASSES = 5  #: that changed most; all are in per_class.csv
SEEDS = 10  #: told one by one
LETTERS = 40  #: of a name in a table


@dataclass(frozen=True)
class Comparison:
    """One setting compared with the baseline."""

    match: Match
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


def page(comparison: Comparison) -> str:
    """Return all that is shown of one comparison but the sentence."""
    rows = [["", ""], *facts(comparison), *tests(comparison)]
    facts_and_tests = format_table(rows, "<")[1:]
    middle = len(facts(comparison))
    blocks = [facts_and_tests[:middle], scores(comparison), facts_and_tests[middle:], classes(comparison)]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def facts(comparison: Comparison) -> list[list[str]]:
    paired = comparison.verdict.figures.paired
    extent = (
        f"{paired.samples:,} samples of {comparison.split}, {paired.classes:,} classes; {comparison.checkpoint} weights"
    )
    return [
        ["run", named(comparison.names[0], [run.directory for run in comparison.match.run.runs])],
        ["baseline", named(comparison.names[1], [run.directory for run in comparison.match.baseline.runs])],
        ["they differ in", differing(comparison)],
        ["compared on", f"{extent}; {seeds(comparison)}"],
    ]


def named(name: str, directories: Sequence[Path]) -> str:
    """Return a name with the directory it stands for, or the first of several."""
    more = f" and {len(directories) - 1} more" if len(directories) > 1 else ""
    directory_text = escape_unprintable(display_path(directories[0]))
    return (
        f"{directory_text}{more}"
        if directory_text == name and not more
        else f"{escape_unprintable(name)}: {directory_text}{more}"
    )


def differing(comparison: Comparison) -> str:
    """Return what the two were told differently, in one line."""
    pairs = briefly(comparison.match.run, comparison.match.baseline).items()
    found = [(key, *(truncate_middle(value, LETTERS) for value in pair)) for key, pair in pairs]
    cells = [f"{key} {run}, not {other}" for key, run, other in found[:TOLD]]
    more = [f"{len(found) - TOLD} more keys"] if len(found) > TOLD else []
    return escape_unprintable("; ".join([*cells, *more])) or "nothing but the seed"


def seeds(comparison: Comparison) -> str:
    """Return the seeds, and what one alone can't tell."""
    run, baseline = comparison.match.run.seeds, comparison.match.baseline.seeds
    if len(run) > 1:
        return f"seeds {', '.join(map(str, run))}"
    which = f"seed {run[0]}" if run == baseline else f"seeds {run[0]} and {baseline[0]}"
    return f"{which}, which says nothing of other seeds"


def scores(comparison: Comparison) -> list[str]:
    """Return both scores and the difference in each."""
    found = comparison.verdict.figures
    head = ["", "run", "baseline", "difference", "95 % interval"]
    return format_table([head, score_row("accuracy", found.accuracy), score_row("macro F1", found.macro_f1)], "<>")


def score_row(name: str, score: Score) -> list[str]:
    ends_of_it = ends(score.low, score.high)
    return [name, format_percent(score.run), format_percent(score.baseline), points(score.difference), ends_of_it]


def tests(comparison: Comparison) -> list[list[str]]:
    """Return who alone is right, seed by seed, with the exact test; what decides; what could have shown."""
    found, several = comparison.verdict.figures, comparison.verdict.figures.paired.seeds > 1
    rows = []
    for seed, (run, baseline, p) in list(zip(comparison.match.run.seeds, found.by_seed, strict=True))[:SEEDS]:
        label = f"right alone{f', seed {seed}' if several else ''}"
        sides = f"{run:,} with the run, {baseline:,} with the baseline"
        rows.append([label, f"{sides}: {p_text(p)} (McNemar's exact test)"])
    if several:
        rows.append(["over seeds, samples", p_text(found.p_value)])
    if comparison.verdict.comparisons > 1:
        rows.append(
            [
                f"of {comparison.verdict.comparisons} comparisons",
                f"{p_text(comparison.verdict.p_value)} (Holm's correction)",
            ]
        )
    return [*rows, ["could have shown", comparison.verdict.least]]


def classes(comparison: Comparison) -> list[str]:
    """Return the classes on which most samples changed sides, if any did."""
    changed = [found for found in comparison.verdict.figures.classes if found.only_run != found.only_baseline]
    changed.sort(key=lambda found: -abs(found.only_run - found.only_baseline))
    head = ["classes that differ most", "samples", "recall", "baseline", "difference", "F1", "baseline", "difference"]
    rows = [class_row(comparison, found) for found in changed[:CLASSES]]
    return format_table([[*head, "p, corrected"], *rows], "<>") if rows else []


def class_row(comparison: Comparison, result: ClassFigures) -> list[str]:
    pairs = (cell for pair in (result.recall, result.f1) for cell in cells_of(pair))
    name = truncate_middle(comparison.class_names[result.label], LETTERS)
    return [name, f"{result.samples:,}", *pairs, p_text(result.p_value).removeprefix("p ").removeprefix("= ")]


def cells_of(pair: tuple[float, float]) -> Iterator[str]:
    """Yield a score of both, and the difference."""
    yield from map(format_percent, pair)
    yield points(pair[0] - pair[1])


def summary(comparisons: Sequence[Comparison]) -> str:
    """Return a table of several settings, each compared with the same baseline."""
    head = ["", "accuracy", "macro F1", "difference", "95 % interval", "p", "corrected"]
    found = comparisons[0].verdict.figures
    baseline = [truncate_middle(comparisons[0].names[1], LETTERS), format_percent(found.accuracy.baseline)]
    rows = [[*baseline, format_percent(found.macro_f1.baseline), "", "", "", ""], *map(summary_row, comparisons)]
    return "\n".join(format_table([head, *rows], "<>"))


def summary_row(comparison: Comparison) -> list[str]:
    found, score = comparison.verdict.figures, comparison.verdict.figures.accuracy
    p_values = (p_text(p).removeprefix("p ").removeprefix("= ") for p in (found.p_value, comparison.verdict.p_value))
    told = [points(score.difference), ends(score.low, score.high)]
    scores = map(format_percent, (score.run, found.macro_f1.run))
    return [truncate_middle(comparison.names[0], LETTERS), *scores, *told, *p_values]
