"""McNemar's exact test, its power, and Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binom, binomtest

POWER = 0.8  #: with which the smallest difference would show: in four of five comparisons


def mcnemar(only_run: int, only_baseline: int) -> float:
    """Return the two-sided p-value of McNemar's exact test; 1 where the two never disagree.

    Were both equally good, whoever alone is right would be a toss of a coin. McNemar, Note on the Sampling Error of the
    Difference between Correlated Proportions or Percentages (Psychometrika 12, 1947).
    """
    tosses = only_run + only_baseline
    return float(binomtest(only_run, tosses).pvalue) if tosses else 1.0


def power(samples: int, disagreement: float, difference: float, level: float) -> float:
    """Return how often the exact test shows a true difference, in the right direction.

    Duffy, Asymptotic and Exact Power for the McNemar Test and its Analogue with R Controls per Case (Biometrics 40,
    1984): summed over how many samples the two may disagree on.

    Args:
        disagreement: the share of samples that exactly one of the two gets right; at least `difference`.
        difference: in accuracy, positive.
        level: of the two-sided test.
    """
    disagreement = min(1.0, max(disagreement, difference))
    few, many = binom.ppf([1e-9, 1 - 1e-9], samples, disagreement)
    tosses = np.arange(few, many + 1)
    shown = binom.sf(binom.isf(level / 2, tosses, 0.5), tosses, (disagreement + difference) / (2 * disagreement))
    return float(binom.pmf(tosses, samples, disagreement) @ shown)


def smallest_difference(samples: int, disagreement: float, level: float) -> float | None:
    """Return the least true difference in accuracy that the exact test shows with `POWER`; None where none would.

    The two are taken to disagree as often as they were seen to, or as often as the difference needs.
    """

    def lacking(difference: float) -> float:
        return power(samples, disagreement, difference, level) - POWER

    return float(brentq(lacking, 1e-9, 1.0, xtol=1e-6)) if lacking(1.0) >= 0 else None


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for being several: those below 0.05 hold together with 95 % confidence.

    Holm, A Simple Sequentially Rejective Multiple Test Procedure (Scandinavian Journal of Statistics 6, 1979).
    """
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, float)[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(1, np.maximum.accumulate(steps))
    return [float(p) for p in corrected]
