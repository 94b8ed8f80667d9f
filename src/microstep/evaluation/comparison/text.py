"""Text of comparisons, for the terminal and comparison.txt."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from microstep.errors import escape_unprintable
from microstep.evaluation.comparison.groups import GroupPair, RunGroup, format_seed_list
from microstep.evaluation.comparison.names import find_brief_differences
from microstep.evaluation.comparison.paired import PairedPredictions
from microstep.evaluation.comparison.results import ClassComparison, ComparisonResult
from microstep.evaluation.comparison.verdict import Verdict, format_difference, format_interval, format_p_value
from microstep.utils.tables import format_table
from microstep.utils.text import format_percent, truncate_middle

MAX_DIFFERENCES_SHOWN = 6  #: keys in which the groups differ; comparison.json has all
MAX_CLASSES_SHOWN = 5  #: classes that changed most; per_class.csv has all
MAX_SEEDS_SHOWN = 10  #: seeds with a row each
TABLE_NAME_LETTERS = 40  #: letters of a name in a table


@dataclass(frozen=True)
class Comparison:
    """Comparison of one group of runs with the baseline."""

    match: GroupPair
    verdict: Verdict
    names: tuple[str, str]  #: of run and baseline
    split: str

    @property
    def checkpoints(self) -> tuple[str, str]:
        """Checkpoints of run and baseline."""
        return self.match.run.first.checkpoint, self.match.baseline.first.checkpoint

    @property
    def result(self) -> ComparisonResult:
        return self.verdict.result

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.match.baseline.first.report.class_names

    @property
    def sentence(self) -> str:
        return self.verdict.format_sentence(*map(escape_unprintable, self.names))


def comparison_report_text(comparison: Comparison) -> str:
    facts = comparison_rows(comparison)
    lines = format_table([*facts, *format_test_rows(comparison)], "<")
    scores, classes = format_scores(comparison.result), format_changed_classes(comparison)
    blocks = [lines[: len(facts)], scores, lines[len(facts) :], classes]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def comparison_rows(comparison: Comparison) -> list[list[str]]:
    match, paired = comparison.match, comparison.result.paired
    training = "; ".join(map(" ".join, match.training_differences.items()))
    samples = f"{paired.samples:,} samples of {comparison.split}"
    samples += f", {paired.classes:,} classes" if isinstance(paired, PairedPredictions) else ""
    weights = f"{' and '.join(dict.fromkeys(comparison.checkpoints))} weights"
    return [
        ["run", format_name_and_directory(comparison.names[0], match.run)],
        ["baseline", format_name_and_directory(comparison.names[1], match.baseline)],
        ["they differ in", format_differing_settings(match)],
        *([["warning", f"the runs were not all trained by the same {training}"]] if training else []),
        ["compared on", f"{samples}; {weights}; {format_seeds(match)}"],
    ]


def format_name_and_directory(name: str, group: RunGroup) -> str:
    directory, others = escape_unprintable(group.directories[0]), len(group.runs) - 1
    prefix = "" if directory == name and not others else f"{escape_unprintable(name)}: "
    return f"{prefix}{directory}{f' and {others} more' if others else ''}"


def format_differing_settings(match: GroupPair) -> str:
    pairs = find_brief_differences(match.run, match.baseline).items()
    found = [(key, *(truncate_middle(value, TABLE_NAME_LETTERS) for value in pair)) for key, pair in pairs]
    cells = [f"{key} {run}, not {other}" for key, run, other in found[:MAX_DIFFERENCES_SHOWN]]
    more = [f"{len(found) - MAX_DIFFERENCES_SHOWN} more keys"] if len(found) > MAX_DIFFERENCES_SHOWN else []
    same = "nothing" if match.run.seeds == match.baseline.seeds else "nothing but the seed"
    return escape_unprintable("; ".join([*cells, *more])) or same


def format_seeds(match: GroupPair) -> str:
    run, baseline = match.run.seeds, match.baseline.seeds
    if len(run) > 1:
        return format_folds(match.run) if match.folds else f"seeds {format_seed_list(run)}"
    seeds = f"seed {run[0]}" if run == baseline else f"seeds {run[0]} and {baseline[0]}"
    return f"{seeds}, which says nothing of other seeds"


def format_folds(group: RunGroup) -> str:
    """Return the number of folds and the seeds, such as `15 folds (5 folds × 3 repeats), seed 0`."""
    seeds, *divisions = zip(*(run.order for run in group.runs), strict=True)
    folds, (repeats, parts) = len({*zip(*divisions, strict=True)}), (len({*column}) for column in divisions)
    product = f" ({parts} folds × {repeats} repeats)" if folds == parts * repeats > max(parts, repeats) else ""
    numbers = sorted({*seeds})
    return f"{folds} folds{product}, seed{'s' * (len(numbers) > 1)} {format_seed_list(numbers)}"


def format_scores(result: ComparisonResult) -> list[str]:
    head = ["", "run", "baseline", "difference", "95 % interval"]
    scores = result.scores.items()
    rows = [[name, *pair_cells(one.run, one.baseline, result), format_interval(one, result)] for name, one in scores]
    return format_table([head, *rows], "<>")


def pair_cells(run: float, baseline: float, result: ComparisonResult) -> list[str]:
    return [format_score(run, result), format_score(baseline, result), format_difference(run - baseline, result)]


def format_score(score: float, result: ComparisonResult) -> str:
    return format_percent(score) if result.macro_f1 else f"{score:z.4g}"


def format_test_rows(comparison: Comparison) -> list[list[str]]:
    verdict, result = comparison.verdict, comparison.result
    several, folds, rows = result.paired.seeds > 1, result.paired.folds, []
    seeds = list(zip(comparison.match.run.rows, result.by_seed, strict=False))
    for seed, (run, baseline, p) in seeds[:MAX_SEEDS_SHOWN]:
        sides = f"{run:,} with the run, {baseline:,} with the baseline"
        label = f"right alone, seed {seed}" if several else "right alone"
        rows.append([label, f"{sides}: {format_p_value(p)} (McNemar's exact test)"])
    if folds:
        method = "(t test, corrected for overlapping training sets)"
        rows.append([f"over {folds.count} folds", f"{format_p_value(result.p_value)} {method}"])
    elif several:
        rows.append(["over seeds, samples", format_p_value(result.p_value)])
        rows.append(["seeds, at any time", format_time_uniform_interval(result)])
    if verdict.comparisons > 1:
        rows.append([f"of {verdict.comparisons} comparisons", f"{format_p_value(verdict.p_value)} (Holm's correction)"])
    detectable = f"{verdict.detectable}, in 4 of 5 such comparisons" if verdict.detectable else "no difference at all"
    return [*rows, ["could have shown", detectable]]


def format_time_uniform_interval(result: ComparisonResult) -> str:
    ends = result.time_uniform_interval
    if ends is None or not np.isfinite(ends).all():
        return "too few seeds yet for an interval that holds however often one looks"
    interval = " to ".join(format_difference(end, result) for end in ends)
    return f"{interval}, a 95 % interval for these samples that holds however often one looks"


def format_changed_classes(comparison: Comparison) -> list[str]:
    changed = [found for found in comparison.result.classes if found.only_run != found.only_baseline]
    changed.sort(key=lambda found: -abs(found.only_run - found.only_baseline))
    head = ["classes that differ most", "samples", "recall", "baseline", "difference", "F1", "baseline", "difference"]
    rows = [class_cells(found, comparison) for found in changed[:MAX_CLASSES_SHOWN]]
    return format_table([[*head, "p, corrected"], *rows], "<>") if rows else []


def class_cells(found: ClassComparison, comparison: Comparison) -> list[str]:
    name = truncate_middle(comparison.class_names[found.label], TABLE_NAME_LETTERS)
    scores = [cell for pair in (found.recall, found.f1) for cell in pair_cells(*pair, comparison.result)]
    return [name, f"{found.samples:,}", *scores, bare_p_value(found.p_value)]


def bare_p_value(value: float) -> str:
    return format_p_value(value).removeprefix("p ").removeprefix("= ")


def format_comparison_summary(comparisons: Sequence[Comparison]) -> str:
    name, result = comparisons[0].names[1], comparisons[0].result
    head = ["", *result.scores, "difference", "95 % interval", "p", "corrected"]
    scores = [format_score(score.baseline, result) for score in result.scores.values()]
    baseline = [truncate_middle(name, TABLE_NAME_LETTERS), *scores, *[""] * 4]
    return "\n".join(format_table([head, baseline, *map(summary_cells, comparisons)], "<>"))


def summary_cells(comparison: Comparison) -> list[str]:
    result, score = comparison.result, comparison.result.score
    scores = [format_score(one.run, result) for one in result.scores.values()]
    difference = [format_difference(score.difference, result), format_interval(score, result)]
    p_values = map(bare_p_value, (result.p_value, comparison.verdict.p_value))
    return [truncate_middle(comparison.names[0], TABLE_NAME_LETTERS), *scores, *difference, *p_values]
