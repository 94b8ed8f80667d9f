"""Formats the result of check=accumulation as text and for JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from microstep.diagnostics.accumulation.loops import Cause
from microstep.diagnostics.accumulation.measure import WindowMeasurement
from microstep.diagnostics.accumulation.sample_weights import SampleWeights
from microstep.utils.tables import format_fields, format_table
from microstep.utils.text import truncate_middle

MAX_MICRO_BATCHES_SHOWN = 16
MAX_LAYERS_SHOWN = 30
LAYER_NAME_LETTERS = 44


@dataclass(frozen=True)
class AccumulationCheck:
    """The measurements of an experiment's windows."""

    rule: str
    model: str
    summary: dict[str, str]
    parameters: dict[str, int]  #: number of trained parameters by layer
    windows: list[WindowMeasurement]


def accumulation_report_text(check: AccumulationCheck) -> str:
    names = [one.window.name for one in check.windows]
    lines = [
        format_fields(check.summary | {one.window.name: format_cut(one) for one in check.windows}),
        "\nthe gradient of micro-batches against that of one big batch: relative difference",
        *format_table([["layer", "parameters", *names], *layer_rows(check)], "<>"),
        "\nwhy: each cause alone, with all others switched off (– if it does not occur)",
        *format_table([["cause", *names], *cause_rows(check)], "<>"),
    ]
    if any(Cause.STATISTICS in one.cause_differences for one in check.windows):
        lines.append("  (running statistics: relative to themselves, not to the gradient)")
    lines.append("\nwhat each micro-batch weighs in the gradient (and should weigh)")
    lines += weight_table(check, [one.micro_batch_weights for one in check.windows])
    if any(running := [one.running_weights for one in check.windows]):
        lines.append("\nwhat each micro-batch weighs in BatchNorm's running statistics (and would, in one big batch)")
        lines += weight_table(check, running)
    return "\n".join(lines)


def format_cut(measurement: WindowMeasurement) -> str:
    sizes, samples = measurement.window.shape.sizes, measurement.window.shape.samples
    if len(set(sizes)) == 1:
        return f"{len(sizes)} × {sizes[0]} = {samples} samples"
    cut = " + ".join(map(str, sizes)) if len(sizes) <= 8 else f"{len(sizes) - 1} × {sizes[0]} + {sizes[-1]}"
    return f"{cut} = {samples} samples"


def layer_rows(check: AccumulationCheck) -> list[list[str]]:
    """Return a row a layer, in the model's order, and one for all. Of many layers those that differ most are shown."""
    names = list(check.parameters)
    largest = {name: max(one.layer_differences[name] for one in check.windows) for name in names}
    shown = sorted(names, key=lambda name: -largest[name])[:MAX_LAYERS_SHOWN]
    rows = [layer_row(name, check) for name in names if name in shown]
    if len(names) > MAX_LAYERS_SHOWN:
        rows.append([f"… {len(names) - MAX_LAYERS_SHOWN} more, closer", "", *[""] * len(check.windows)])
    totals = [format_relative_difference(one.total_difference) for one in check.windows]
    return [*rows, ["all", f"{sum(check.parameters.values()):,}", *totals]]


def layer_row(name: str, check: AccumulationCheck) -> list[str]:
    cells = [format_relative_difference(one.layer_differences[name]) for one in check.windows]
    return [truncate_middle(name, LAYER_NAME_LETTERS), f"{check.parameters[name]:,}", *cells]


def cause_rows(check: AccumulationCheck) -> list[list[str]]:
    rows = [[cause.value, *(format_cause(one, cause) for one in check.windows)] for cause in Cause]
    rest = [format_relative_difference(one.remaining_difference) for one in check.windows]
    return [*rows, ["none of these", *rest]]


def format_cause(measurement: WindowMeasurement, cause: Cause) -> str:
    differences = measurement.cause_differences
    return format_relative_difference(differences[cause]) if cause in differences else "–"


def weight_table(check: AccumulationCheck, weights: Sequence[SampleWeights | None]) -> list[str]:
    """Return the lines of a table with a row a micro-batch; of very many, the first ones and the last."""
    count = max(len(one.window.batches) for one in check.windows)
    shown = range(count) if count <= MAX_MICRO_BATCHES_SHOWN else [*range(MAX_MICRO_BATCHES_SHOWN - 1), count - 1]
    head = ["micro-batch", *(one.window.name for one in check.windows)]
    return format_table([head, *([str(n + 1), *(format_weight(one, n) for one in weights)] for n in shown)], "<>")


def format_weight(weights: SampleWeights | None, number: int) -> str:
    """Return the measured weight of a micro-batch (and the due one); empty if the window has no such micro-batch."""
    if weights is None or number >= len(weights.due):
        return ""
    return f"{weights.measured[number]:.4f} ({weights.due[number]:.4f})"


def format_relative_difference(value: float) -> str:
    return "0" if value == 0 else f"{value:.0e}" if value < 0.001 else f"{value:.4f}"


def accumulation_as_json(check: AccumulationCheck) -> dict[str, Any]:
    return {"rule": check.rule, "model": check.model, "windows": [window_as_json(one) for one in check.windows]}


def window_as_json(measurement: WindowMeasurement) -> dict[str, Any]:
    return {
        "name": measurement.window.name,
        "micro_batches": list(measurement.window.shape.sizes),
        "exact": measurement.is_exact,
        "difference": measurement.total_difference,
        "layers": measurement.layer_differences,
        "causes": {cause.name.lower(): value for cause, value in measurement.cause_differences.items()},
        "without_causes": measurement.remaining_difference,
        "unexplained": measurement.unexplained or None,
        "weights": {
            "micro_batches": asdict(measurement.micro_batch_weights),
            "samples": asdict(measurement.sample_weights),
            "running_statistics": measurement.running_weights and asdict(measurement.running_weights),
        },
    }
