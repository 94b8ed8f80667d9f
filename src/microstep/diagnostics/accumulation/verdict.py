"""The one sentence in which an examination of accumulation ends."""

from __future__ import annotations

import math

from microstep.diagnostics.accumulation.loops import Cause
from microstep.diagnostics.accumulation.measure import WindowMeasurement
from microstep.diagnostics.accumulation.report import AccumulationCheck, format_cut, format_relative_difference
from microstep.diagnostics.accumulation.sample_weights import WEIGHT_TOLERANCE
from microstep.utils.text import format_percent

MAX_NAMED_CAUSES = 3  #: causes at most


def accumulation_verdict_text(check: AccumulationCheck) -> str:
    """Return whether the loop is exact with this model; if not, for which causes, and what to change."""
    wrong = [one for one in check.windows if not one.exact]
    if not wrong:
        return exact_verdict_text(check)
    worst = max(wrong, key=lambda one: one.total)
    where = f"in the {worst.window.name} ({format_cut(worst)}) the gradient of {check.model} by {check.rule} is "
    found = f"{format_gradient_difference(worst)}{format_last_weight(worst)}{format_exact_windows(check, wrong)}"
    return f"Not exact: {where}{found}; {format_causes(worst)}."


def exact_verdict_text(check: AccumulationCheck) -> str:
    """Return the good news."""
    worst = max(max(one.total, *one.layers.values()) for one in check.windows)
    of = f"the gradient of {check.model} over {format_cut(check.windows[0])}"
    return (
        f"Exact: by {check.rule} {of} is that of one big batch, to {format_relative_difference(worst)} in every layer; "
        f"each sample weighs what it should, the last backward no more than the first{format_random_caution(check)}."
    )


def format_random_caution(check: AccumulationCheck) -> str:
    """Return a caution where random numbers were drawn, and happened to be the same."""
    drawn = any(Cause.DRAWS in one.alone for one in check.windows)
    return (
        "; dropout's masks came out the same, as one layer's on a CPU do, and needn't on another device"
        if drawn
        else ""
    )


def format_gradient_difference(measurement: WindowMeasurement) -> str:
    """Return how far a window's gradient is from the big batch's."""
    if measurement.total < 0.0005:
        return (
            f"{format_relative_difference(measurement.total)} of its size away from one big batch's"
            if measurement.total
            else "that of one big batch"
        )
    return f"{format_percent(measurement.total)} of its size away from one big batch's"


def format_exact_windows(check: AccumulationCheck, wrong: list[WindowMeasurement]) -> str:
    """Return where it is exact all the same."""
    right = [one for one in check.windows if one not in wrong]
    return f" (the {right[0].window.name} is exact)" if right else ""


def format_last_weight(measurement: WindowMeasurement) -> str:
    """Return how much more or less than the first the last micro-batch weighs: what the riddle is about."""
    told = [(measurement.samples.last_to_first, ", sample for sample")]
    if measurement.running:
        told.append(
            (measurement.running.measured[-1] / measurement.running.measured[0], " in BatchNorm's running statistics")
        )
    found = [format_weight_ratio(ratio, where) for ratio, where in told if abs(ratio - 1) > WEIGHT_TOLERANCE]
    return f", and its last micro-batch {' and '.join(found)}" if found else ""


def format_weight_ratio(ratio: float, context: str) -> str:
    """Return a ratio of weights in words."""
    if ratio in (0, math.inf):
        return "counts for nothing" if ratio == 0 else "alone counts"
    return f"weighs {ratio:.2f} times what the first does{context}"


def format_causes(measurement: WindowMeasurement) -> str:
    """Return the causes, the largest first, and what to change."""
    if not measurement.causes:
        return f"the cause is something else: {measurement.unexplained}"
    told = [f"{cause.value} ({format_relative_difference(measurement.alone[cause])})" for cause in measurement.causes]
    more = f" and {len(told) - MAX_NAMED_CAUSES} more" if len(told) > MAX_NAMED_CAUSES else ""
    rest = f", and {measurement.unexplained}" if measurement.unexplained else ""
    return (
        f"the cause{'s are' if len(told) > 1 else ' is'} {', '.join(told[:MAX_NAMED_CAUSES])}{more}{rest}: "
        f"{format_remedies(measurement.causes)}"
    )


def format_remedies(causes: list[Cause]) -> str:
    """Return what to change, each once."""
    return "; ".join(dict.fromkeys(cause.remedy for cause in causes))
