"""Verdict of a comparison in one sentence: better, worse, or no difference."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from microstep.evaluation.comparison.estimates import SIGNIFICANCE_LEVEL
from microstep.evaluation.comparison.results import ComparisonResult, ScoreComparison
from microstep.evaluation.comparison.significance import correct_holm
from microstep.utils.text import format_count


@dataclass(frozen=True)
class Verdict:
    """Verdict of one comparison.

    One group is better than the other if the corrected p-value is below 0.05 *and* the interval of the difference in
    score excludes zero, so that the sentence contradicts neither of them.
    """

    result: ComparisonResult
    p_value: float  #: corrected for all comparisons made together
    comparisons: int  #: number of comparisons made together

    @property
    def word(self) -> Literal["better", "worse", "no difference"]:
        """Verdict on the run, relative to the baseline."""
        score = self.result.score
        if not (self.p_value < SIGNIFICANCE_LEVEL and score.excludes_zero):
            return "no difference"
        return "better" if score.difference > 0 else "worse"

    @cached_property
    def smallest_difference(self) -> float | None:
        """Smallest true difference in score that four of five such comparisons detect; None if there is none."""
        found = self.result.smallest_difference(self.comparisons)
        return None if found is None or (self.result.macro_f1 and found > 1) else found

    def format_sentence(self, run: str, baseline: str) -> str:
        if self.word != "no difference":
            return f"{run} is {self.word} than {baseline}: {self.evidence} on {self.extent}."
        limit = "they are too few to show any difference"
        if self.detectable:
            limit = f"{self.detectable} would have shown in 4 of 5 such comparisons"
        return f"No difference between {run} and {baseline} that {self.extent} could show: {self.evidence}; {limit}."

    @property
    def evidence(self) -> str:
        score = self.result.score
        difference, name = format_difference(score.difference, self.result), self.result.paired.name.replace("_", " ")
        unit = f"points of {name}" if self.result.macro_f1 else f"in {name}"
        return f"{difference} {unit} (95 % interval {format_interval(score, self.result)}, {self.test})"

    @property
    def test(self) -> str:
        """The p-value, with its correction, and a note if it disagrees with the interval."""
        uncorrected = self.result.p_value
        text = format_p_value(uncorrected)
        if self.comparisons > 1:
            prefix = f"{text} alone, " if uncorrected < SIGNIFICANCE_LEVEL <= self.p_value else ""
            text = f"{prefix}{format_p_value(self.p_value)} corrected for {self.comparisons} comparisons"
        agree = (self.p_value < SIGNIFICANCE_LEVEL) == self.result.score.excludes_zero
        return text if agree else f"{text}: at the margin, where interval and test disagree"

    @property
    def extent(self) -> str:
        samples, folds = format_count(self.result.paired.samples, "sample"), self.result.paired.folds
        if folds:
            return f"{samples} and {folds.count} folds"
        return samples if self.result.paired.seeds == 1 else f"{samples} and {self.result.paired.seeds} seeds"

    @property
    def detectable(self) -> str:
        least = self.smallest_difference
        if least is None:
            return ""
        points = f"{100 * least:.1f}" if least >= 0.0005 else f"{100 * least:.1g}"
        return f"a true difference of {f'{points} points' if self.result.macro_f1 else f'{least:.3g}'}"


def make_verdicts(results: Sequence[ComparisonResult]) -> list[Verdict]:
    """Return the verdicts on comparisons made together, with Holm's correction."""
    corrected = correct_holm([result.p_value for result in results])
    return [Verdict(result, p, len(results)) for result, p in zip(results, corrected, strict=True)]


def format_difference(difference: float, result: ComparisonResult) -> str:
    """Return a difference in the score: in percentage points for classes, else as a number."""
    text = f"{100 * difference:+z.1f}" if result.macro_f1 else f"{difference:+z.3g}"
    return text.replace("-", "−")


def format_interval(score: ScoreComparison, result: ComparisonResult) -> str:
    return " to ".join(format_difference(end, result) for end in (score.low, score.high))


def format_p_value(value: float) -> str:
    return "p < 0.0001" if value < 1e-4 else f"p = {value:.4f}" if value < 0.01 else f"p = {value:.3f}"
