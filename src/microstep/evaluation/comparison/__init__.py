"""Compares groups of runs on the same samples, with confidence intervals and tests."""

from microstep.evaluation.comparison.paired import PairedPredictions
from microstep.evaluation.comparison.results import ComparisonResult
from microstep.evaluation.comparison.verdict import Verdict, make_verdicts

__all__ = ["ComparisonResult", "PairedPredictions", "Verdict", "make_verdicts"]
