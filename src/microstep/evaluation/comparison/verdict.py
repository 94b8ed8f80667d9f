"""One plain sentence: better, worse, or no difference that this many samples could show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from microstep.evaluation.comparison.results import SIGNIFICANCE_LEVEL, ComparisonResult
from microstep.evaluation.comparison.significance import correct_holm
from microstep.utils.text import format_count

VerdictWord = Literal["better", "worse", "no difference"]
POWER_PHRASE = "in 4 of 5 such comparisons"


@dataclass(frozen=True)
class Verdict:
    """What the figures of one comparison allow to say.

    The rule: one is better than the other where the corrected p-value is below 0.05 *and* the interval of the
    difference in accuracy leaves zero out. So the sentence contradicts no figure beside it.
    """

    figures: ComparisonResult
    p_value: float  #: corrected for all comparisons that were made together
    comparisons: int

    @property
    def word(self) -> VerdictWord:
        """What the run is, compared with the baseline."""
        accuracy = self.figures.accuracy
        if not (self.p_value < SIGNIFICANCE_LEVEL and accuracy.leaves_zero_out):
            return "no difference"
        return "better" if accuracy.difference > 0 else "worse"

    @cached_property
    def smallest_difference(self) -> float | None:
        """The least true difference in accuracy that would have shown in four of five; None where none would."""
        found = self.figures.smallest_difference(self.comparisons)
        return None if found is None or found > 1 else found

    def sentence(self, run: str, baseline: str) -> str:
        """Return the verdict in one sentence; run and baseline are names."""
        if self.word != "no difference":
            return f"{run} is {self.word} than {baseline}: {self.evidence} on {self.extent}."
        return (
            f"No difference between {run} and {baseline} that {self.extent} could show: {self.evidence}; {self.limit}."
        )

    @property
    def evidence(self) -> str:
        """The difference, its interval and the p-value."""
        found = self.figures.accuracy
        return (
            f"{format_points(found.difference)} points of accuracy (95 % interval "
            f"{format_interval(found.low, found.high)}, {self.test})"
        )

    @property
    def test(self) -> str:
        """The p-value, with its correction and what it disagrees with."""
        alone = self.figures.p_value
        told = format_p_value(alone)
        if self.comparisons > 1:
            plain = f"{told} alone, " if alone < SIGNIFICANCE_LEVEL <= self.p_value else ""
            told = f"{plain}{format_p_value(self.p_value)} corrected for {self.comparisons} comparisons"
        agree = (self.p_value < SIGNIFICANCE_LEVEL) == self.figures.accuracy.leaves_zero_out
        return told if agree else f"{told}: at the margin, where interval and test disagree"

    @property
    def extent(self) -> str:
        """How many samples and seeds it is said of."""
        samples = format_count(self.figures.paired.samples, "sample")
        return samples if self.figures.paired.seeds == 1 else f"{samples} and {self.figures.paired.seeds} seeds"

    @property
    def limit(self) -> str:
        """How small a difference could have been shown, as the end of a sentence."""
        if self.smallest_difference is None:
            return "so few could show none at all"
        return f"a true difference of {100 * self.smallest_difference:.1f} points would have shown {POWER_PHRASE}"

    @property
    def least(self) -> str:
        """How small a difference could have been shown, in a few words."""
        if self.smallest_difference is None:
            return "no difference at all"
        return f"a true difference of {100 * self.smallest_difference:.1f} points, {POWER_PHRASE}"


def make_verdicts(figures: Sequence[ComparisonResult]) -> list[Verdict]:
    """Return the verdicts on comparisons made together, Holm's correction applied."""
    corrected = correct_holm([one.p_value for one in figures])
    return [Verdict(one, p, len(figures)) for one, p in zip(figures, corrected, strict=True)]


def format_points(difference: float, digits: int = 1) -> str:
    """Return a difference of shares in percentage points, its sign always there."""
    text = f"{100 * difference:+.{digits}f}".replace("-", "−")
    return text.replace("−", "+") if float(text.replace("−", "-")) == 0 else text


def format_interval(low: float, high: float, digits: int = 1) -> str:
    """Return the ends of an interval, in points."""
    return f"{format_points(low, digits)} to {format_points(high, digits)}"


def format_p_value(value: float) -> str:
    """Return a p-value with two digits that count."""
    return "p < 0.0001" if value < 1e-4 else f"p = {value:.4f}" if value < 0.01 else f"p = {value:.3f}"
