"""Compares two groups of runs on the same samples, with confidence intervals and tests."""

from microstep.evaluation.comparison.paired import Paired
from microstep.evaluation.comparison.results import Figures
from microstep.evaluation.comparison.verdict import Verdict, verdicts

__all__ = ["Figures", "Paired", "Verdict", "verdicts"]
