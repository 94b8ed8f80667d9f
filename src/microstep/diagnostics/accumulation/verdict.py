"""The one sentence in which an examination of accumulation ends."""

from __future__ import annotations

import math

from microstep.diagnostics.accumulation.loops import Cause
from microstep.diagnostics.accumulation.measure import Measured
from microstep.diagnostics.accumulation.report import Looked, cut, size
from microstep.diagnostics.accumulation.sample_weights import TELLING
from microstep.utils.text import format_percent

NAMED = 3  #: causes at most


def sentence(check: Looked) -> str:
    """Return whether the loop is exact with this model; if not, for which causes, and what to change."""
    wrong = [one for one in check.windows if not one.exact]
    if not wrong:
        return exact(check)
    worst = max(wrong, key=lambda one: one.total)
    where = f"in the {worst.window.name} ({cut(worst)}) the gradient of {check.model} by {check.rule} is "
    return f"Not exact: {where}{apart(worst)}{heavier(worst)}{elsewhere(check, wrong)}; {because(worst)}."


def exact(check: Looked) -> str:
    """Return the good news."""
    worst = max(max(one.total, *one.layers.values()) for one in check.windows)
    of = f"the gradient of {check.model} over {cut(check.windows[0])}"
    return (
        f"Exact: by {check.rule} {of} is that of one big batch, to {size(worst)} in every layer; "
        f"each sample weighs what it should, the last backward no more than the first{lucky(check)}."
    )


def lucky(check: Looked) -> str:
    """Return a caution where random numbers were drawn, and happened to be the same."""
    drawn = any(Cause.DRAWS in one.alone for one in check.windows)
    return (
        "; dropout's masks came out the same, as one layer's on a CPU do, and needn't on another device"
        if drawn
        else ""
    )


def apart(measurement: Measured) -> str:
    """Return how far a window's gradient is from the big batch's."""
    if measurement.total < 0.0005:
        return (
            f"{size(measurement.total)} of its size away from one big batch's"
            if measurement.total
            else "that of one big batch"
        )
    return f"{format_percent(measurement.total)} of its size away from one big batch's"


def elsewhere(check: Looked, wrong: list[Measured]) -> str:
    """Return where it is exact all the same."""
    right = [one for one in check.windows if one not in wrong]
    return f" (the {right[0].window.name} is exact)" if right else ""


def heavier(measurement: Measured) -> str:
    """Return how much more or less than the first the last micro-batch weighs: what the riddle is about."""
    told = [(measurement.samples.last_to_first, ", sample for sample")]
    if measurement.running:
        told.append(
            (measurement.running.measured[-1] / measurement.running.measured[0], " in BatchNorm's running statistics")
        )
    found = [times(ratio, where) for ratio, where in told if abs(ratio - 1) > TELLING]
    return f", and its last micro-batch {' and '.join(found)}" if found else ""


def times(ratio: float, context: str) -> str:
    """Return a ratio of weights in words."""
    if ratio in (0, math.inf):
        return "counts for nothing" if ratio == 0 else "alone counts"
    return f"weighs {ratio:.2f} times what the first does{context}"


def because(measurement: Measured) -> str:
    """Return the causes, the largest first, and what to change."""
    if not measurement.causes:
        return f"the cause is something else: {measurement.unexplained}"
    told = [f"{cause.value} ({size(measurement.alone[cause])})" for cause in measurement.causes]
    more = f" and {len(told) - NAMED} more" if len(told) > NAMED else ""
    rest = f", and {measurement.unexplained}" if measurement.unexplained else ""
    return (
        f"the cause{'s are' if len(told) > 1 else ' is'} {', '.join(told[:NAMED])}{more}{rest}: "
        f"{remedies(measurement.causes)}"
    )


def remedies(causes: list[Cause]) -> str:
    """Return what to change, each once."""
    return "; ".join(dict.fromkeys(cause.remedy for cause in causes))
