"""Tells which settings of a sweep these runs can't tell apart from the best."""

import numpy as np

from microstep.config.experiment import REPEAT_KEYS
from microstep.sweep.summary.study import RunGroup, SweepTable
from microstep.utils.repeats import variance_of_mean

LEVEL = 0.05
SPLIT_KEYS = ("folds", "split_seed", "val_samples", "val_fraction", "test_samples", "test_fraction")
BEST, UNDECIDED, WORSE, UNKNOWN = "best", "undecided", "worse", "–"


def compare_with_best(sweep: SweepTable) -> tuple[str, ...]:
    """Return for each group whether it is the best, worse, or undecided; unknown without two common seeds or folds.

    The best mean of k is compared with each other setting by a one-sided paired t test at the level 0.05 / (k − 1).
    The setting that is truly the best is then called worse with a probability of at most 0.05, although the data
    chose the first: multiple comparisons with the best, in Bonferroni's form. Gupta, On Some Multiple Decision Rules
    (Technometrics 7, 1965); Hsu, Constrained Simultaneous Confidence Intervals for Multiple Comparisons with the Best
    (Annals of Statistics 12, 1984).
    """
    level = LEVEL / max(1, len(sweep.groups) - 1)
    p_values = [compute_p_value(sweep, group) for group in sweep.groups[1:]]
    words = (UNKNOWN if p is None else WORSE if p < level else UNDECIDED for p in p_values)
    return (BEST, *words)


def compute_p_value(sweep: SweepTable, group: RunGroup) -> float | None:
    """Return the p-value of the hypothesis that a group is at least as good as the best; None if it can't be tested."""
    from scipy.special import stdtr  # takes a tenth of a second, which other summaries need not wait for

    best, own = scores_by_repeat(sweep, sweep.groups[0]), scores_by_repeat(sweep, group)
    common = best.keys() & own.keys()
    over_folds = len({repeat[1:] for repeat in common}) > 1
    pairs: dict[tuple[str, ...], list[float]] = {}
    for repeat in common:  # the seeds of a fold are one repeat
        pairs.setdefault(repeat[1:] if over_folds else repeat, []).append(best[repeat] - own[repeat])
    if len(pairs) < 2:
        return None
    differences = np.array([np.mean(values) for values in pairs.values()]) * (1 if sweep.direction == "max" else -1)
    overlap = float(np.mean([run.record.fold_ratio for run in group.runs])) if over_folds else 0.0
    error = variance_of_mean(differences, overlap, find_resolution(sweep)) ** 0.5
    return float(stdtr(len(pairs) - 1, -differences.mean() / error)) if error else 0.5


def scores_by_repeat(sweep: SweepTable, group: RunGroup) -> dict[tuple[str, ...], float]:
    rows = ((sweep.rows[run.name], sweep.get_score(run)) for run in group.runs)
    keys = (*REPEAT_KEYS, "dataset", *(f"dataset.{key}" for key in SPLIT_KEYS))  # these choose the samples
    return {tuple(row.get(key, "") for key in keys): score for row, score in rows}


def find_resolution(sweep: SweepTable) -> float:
    """Return the smallest step between two scores; 0 if all are equal."""
    steps = np.diff(np.unique([sweep.get_score(run) for run in sweep.scored_runs]))
    return float(min(steps[steps > 1e-9], default=0.0))
