"""The one sentence in which an examination of accumulation ends."""

from __future__ import annotations

import math

from microstep.diagnostics.accumulation.loops import Cause
from microstep.diagnostics.accumulation.measure import Measured
from microstep.diagnostics.accumulation.report import Looked, cut, size
from microstep.diagnostics.accumulation.sample_weights import TELLING
from microstep.utils.text import format_percent

NAMED = 3  #: causes at most


def sentence(looked: Looked) -> str:
    """Return whether the loop is exact with this model; if not, for which causes, and what to change."""
    wrong = [one for one in looked.windows if not one.exact]
    if not wrong:
        return exact(looked)
    worst = max(wrong, key=lambda one: one.total)
    where = f"in the {worst.window.name} ({cut(worst)}) the gradient of {looked.model} by {looked.rule} is "
    return f"Not exact: {where}{apart(worst)}{heavier(worst)}{elsewhere(looked, wrong)}; {because(worst)}."


def exact(looked: Looked) -> str:
    """Return the good news."""
    worst = max(max(one.total, *one.layers.values()) for one in looked.windows)
    of = f"the gradient of {looked.model} over {cut(looked.windows[0])}"
    return (
        f"Exact: by {looked.rule} {of} is that of one big batch, to {size(worst)} in every layer; "
        f"each sample weighs what it should, the last backward no more than the first{lucky(looked)}."
    )


def lucky(looked: Looked) -> str:
    """Return a caution where random numbers were drawn, and happened to be the same."""
    drawn = any(Cause.DRAWS in one.alone for one in looked.windows)
    return (
        "; dropout's masks came out the same, as one layer's on a CPU do, and needn't on another device"
        if drawn
        else ""
    )


def apart(one: Measured) -> str:
    """Return how far a window's gradient is from the big batch's."""
    if one.total < 0.0005:
        return f"{size(one.total)} of its size away from one big batch's" if one.total else "that of one big batch"
    return f"{format_percent(one.total)} of its size away from one big batch's"


def elsewhere(looked: Looked, wrong: list[Measured]) -> str:
    """Return where it is exact all the same."""
    right = [one for one in looked.windows if one not in wrong]
    return f" (the {right[0].window.name} is exact)" if right else ""


def heavier(one: Measured) -> str:
    """Return how much more or less than the first the last micro-batch weighs: what the riddle is about."""
    told = [(one.samples.last_to_first, ", sample for sample")]
    if one.running:
        told.append((one.running.measured[-1] / one.running.measured[0], " in BatchNorm's running statistics"))
    found = [times(ratio, where) for ratio, where in told if abs(ratio - 1) > TELLING]
    return f", and its last micro-batch {' and '.join(found)}" if found else ""


def times(ratio: float, where: str) -> str:
    """Return a ratio of weights in words."""
    if ratio in (0, math.inf):
        return "counts for nothing" if ratio == 0 else "alone counts"
    return f"weighs {ratio:.2f} times what the first does{where}"


def because(one: Measured) -> str:
    """Return the causes, the largest first, and what to change."""
    if not one.causes:
        return f"the cause is something else: {one.unexplained}"
    told = [f"{cause.value} ({size(one.alone[cause])})" for cause in one.causes]
    more = f" and {len(told) - NAMED} more" if len(told) > NAMED else ""
    rest = f", and {one.unexplained}" if one.unexplained else ""
    return (
        f"the cause{'s are' if len(told) > 1 else ' is'} {', '.join(told[:NAMED])}{more}{rest}: {remedies(one.causes)}"
    )


def remedies(causes: list[Cause]) -> str:
    """Return what to change, each once."""
    return "; ".join(dict.fromkeys(cause.remedy for cause in causes))
