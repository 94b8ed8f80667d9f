"""Formats the verdict of check=accumulation: one sentence."""

import math

from microstep.diagnostics.accumulation.loops import REMEDIES, Cause
from microstep.diagnostics.accumulation.measure import WindowMeasurement
from microstep.diagnostics.accumulation.report import AccumulationCheck, format_cut, format_relative_difference
from microstep.diagnostics.accumulation.sample_weights import WEIGHT_TOLERANCE
from microstep.utils.text import format_percent

MAX_NAMED_CAUSES = 3


def accumulation_verdict_text(check: AccumulationCheck) -> str:
    inexact = [one for one in check.windows if not one.is_exact]
    if not inexact:
        return exact_verdict_text(check)
    worst = max(inexact, key=lambda one: one.total_difference)
    window = f"{worst.window.name} ({format_cut(worst)})"
    exact = [f" (the {one.window.name} is exact)" for one in check.windows if one.is_exact][:1]
    found = "".join([format_gradient_difference(worst), format_last_weight(worst), *exact])
    gradient = f"the gradient of {check.model} by {check.rule}"
    return f"Not exact: in the {window} {gradient} is {found}; {format_causes(worst)}."


def exact_verdict_text(check: AccumulationCheck) -> str:
    largest = max(max(one.total_difference, *one.layer_differences.values()) for one in check.windows)
    gradient = f"the gradient of {check.model} over {format_cut(check.windows[0])}"
    random = any(Cause.DRAWS in one.cause_differences for one in check.windows)
    caution = "; dropout's masks came out the same, as one layer's on a CPU do, but may differ on another device"
    return (
        f"Exact: by {check.rule} {gradient} is that of one big batch, to {format_relative_difference(largest)} in "
        f"every layer; each sample weighs what it should, the last backward no more than the first"
        f"{caution if random else ''}."
    )


def format_gradient_difference(measurement: WindowMeasurement) -> str:
    difference = measurement.total_difference
    if difference == 0:
        return "that of one big batch"
    if not math.isfinite(difference):
        return "not zero, but one big batch's is" if difference == math.inf else "not finite, but one big batch's is"
    size = format_relative_difference(difference) if difference < 0.0005 else format_percent(difference)
    return f"{size} of its size away from one big batch's"


def format_last_weight(measurement: WindowMeasurement) -> str:
    """Return the weight of the last micro-batch relative to the first, if they differ."""
    ratios = [(measurement.sample_weights.last_to_first, ", sample for sample")]
    if running := measurement.running_weights:
        ratios.append((running.measured[-1] / running.measured[0], " in BatchNorm's running statistics"))
    texts = [format_weight_ratio(ratio, context) for ratio, context in ratios if abs(ratio - 1) > WEIGHT_TOLERANCE]
    return f", and its last micro-batch {' and '.join(texts)}" if texts else ""


def format_weight_ratio(ratio: float, context: str) -> str:
    if ratio in (0, math.inf):
        return "counts for nothing" if ratio == 0 else "alone counts"
    return f"weighs {ratio:.2f} times what the first does{context}"


def format_causes(measurement: WindowMeasurement) -> str:
    causes, differences = measurement.causes, measurement.cause_differences
    if not causes:
        return f"the cause is something else: {measurement.unexplained}"
    sizes = {cause: format_relative_difference(differences[cause]) for cause in causes[:MAX_NAMED_CAUSES]}
    names = ", ".join(f"{cause.value} ({size})" for cause, size in sizes.items())
    more = f" and {len(causes) - MAX_NAMED_CAUSES} more" if len(causes) > MAX_NAMED_CAUSES else ""
    rest = f", and {measurement.unexplained}" if measurement.unexplained else ""
    remedies = "; ".join(dict.fromkeys(REMEDIES[cause] for cause in causes))
    return f"the cause{'s are' if len(causes) > 1 else ' is'} {names}{more}{rest}: {remedies}"
