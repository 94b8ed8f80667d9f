"""What is found of an experiment's windows, as a page of text and as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from microstep.diagnostics.accumulation.loops import Cause
from microstep.diagnostics.accumulation.measure import WindowMeasurement
from microstep.diagnostics.accumulation.sample_weights import SampleWeights
from microstep.utils.tables import format_fields, format_table
from microstep.utils.text import truncate_middle

MAX_MICRO_BATCHES_SHOWN = 16  #: up to which all are shown
MAX_LAYERS_SHOWN = 30  #: layers up to which all are shown
LAYER_NAME_LETTERS = 44  #: letters of a layer's name


@dataclass(frozen=True)
class AccumulationCheck:
    """An experiment that was looked at, and what was found in each window."""

    rule: str
    model: str
    summary: dict[str, str]
    parameters: dict[str, int]  #: by layer
    windows: list[WindowMeasurement]


def accumulation_report_text(check: AccumulationCheck) -> str:
    """Return everything but the sentence."""
    rows = check.summary | {one.window.name: format_cut(one) for one in check.windows}
    return "\n".join(
        [
            format_fields(rows),
            "\nthe gradient of micro-batches against that of one big batch: relative difference",
            *format_table([["layer", "parameters", *get_window_names(check)], *layer_rows(check)], "<>"),
            "\nwhy: each cause alone, the others switched off (– where it doesn't occur)",
            *format_table([["cause", *get_window_names(check)], *cause_rows(check)], "<>"),
            *format_units_remark(check),
            "\nwhat each micro-batch weighs in the gradient (and should weigh)",
            *format_table(share_rows(check, [one.micro_batches for one in check.windows]), "<>"),
            *format_running_statistics(check),
        ]
    )


def get_window_names(check: AccumulationCheck) -> list[str]:
    return [one.window.name for one in check.windows]


def format_cut(measurement: WindowMeasurement) -> str:
    sizes, samples = measurement.window.shape.sizes, measurement.window.shape.samples
    equal = f"{len(sizes)} × {sizes[0]}" if len(set(sizes)) == 1 else " + ".join(map(str, sizes))
    if len(sizes) > 8 and len(set(sizes)) > 1:
        equal = f"{len(sizes) - 1} × {sizes[0]} + {sizes[-1]}"
    return f"{equal} = {samples} samples"


def layer_rows(check: AccumulationCheck) -> list[list[str]]:
    """Return a row a layer, in the model's order; of many those that differ most; the last is of all together."""
    names = list(check.parameters)
    worst = sorted(names, key=lambda name: -max(one.layers[name] for one in check.windows))[:MAX_LAYERS_SHOWN]
    rows = [layer_row(name, check) for name in names if name in worst]
    if len(names) > MAX_LAYERS_SHOWN:
        rows.append([f"… {len(names) - MAX_LAYERS_SHOWN} more, closer", "", *[""] * len(check.windows)])
    total = f"{sum(check.parameters.values()):,}"
    return [*rows, ["all", total, *(format_relative_difference(one.total) for one in check.windows)]]


def layer_row(name: str, check: AccumulationCheck) -> list[str]:
    sizes = (format_relative_difference(one.layers[name]) for one in check.windows)
    return [truncate_middle(name, LAYER_NAME_LETTERS), f"{check.parameters[name]:,}", *sizes]


def cause_rows(check: AccumulationCheck) -> list[list[str]]:
    """Return a row a cause, and one of what is left without any."""
    causes = [[cause.value, *(alone(one, cause) for one in check.windows)] for cause in Cause]
    return [*causes, ["none of these", *(format_relative_difference(one.rest) for one in check.windows)]]


def alone(one: WindowMeasurement, cause: Cause) -> str:
    return format_relative_difference(one.alone[cause]) if cause in one.alone else "–"


def share_rows(looked: AccumulationCheck, shares: Sequence[SampleWeights | None]) -> list[list[str]]:
    """Return the head and a row for each micro-batch; if there are very many, for the first ones and the last."""
    most = max(len(one.window.batches) for one in looked.windows)
    told = range(most) if most <= MAX_MICRO_BATCHES_SHOWN else [*range(MAX_MICRO_BATCHES_SHOWN - 1), most - 1]
    return [
        ["micro-batch", *get_window_names(looked)],
        *([str(n + 1), *(share(one, n) for one in shares)] for n in told),
    ]


def share(shares: SampleWeights | None, number: int) -> str:
    """Return what one micro-batch weighs and should weigh; empty if the window has no such micro-batch."""
    if shares is None or number >= len(shares.due):
        return ""
    return f"{shares.measured[number]:.4f} ({shares.due[number]:.4f})"


def format_units_remark(check: AccumulationCheck) -> list[str]:
    """Return a remark on the one cause whose size isn't the gradient's, where it occurs."""
    there = any(Cause.STATISTICS in one.alone for one in check.windows)
    return ["  (running statistics: relative to themselves, not to the gradient)"] if there else []


def format_running_statistics(check: AccumulationCheck) -> list[str]:
    """Return what each micro-batch weighs in running statistics, where there are some."""
    shares = [one.running for one in check.windows]
    if not any(shares):
        return []
    title = "\nwhat each micro-batch weighs in BatchNorm's running statistics (and would, in one big batch)"
    return [title, *format_table(share_rows(check, shares), "<>")]


def format_relative_difference(value: float) -> str:
    """Return a relative difference, legible where it is large."""
    return "0" if value == 0 else f"{value:.4f}" if value >= 0.001 else f"{value:.0e}"


def accumulation_as_json(check: AccumulationCheck) -> dict[str, Any]:
    """Return the same for JSON."""
    return {"rule": check.rule, "model": check.model, "windows": [window_as_json(one) for one in check.windows]}


def window_as_json(measurement: WindowMeasurement) -> dict[str, Any]:
    return {
        "name": measurement.window.name,
        "micro_batches": list(measurement.window.shape.sizes),
        "exact": measurement.exact,
        "difference": measurement.total,
        "layers": measurement.layers,
        "causes": {cause.name.lower(): value for cause, value in measurement.alone.items()},
        "without_causes": measurement.rest,
        "unexplained": measurement.unexplained or None,
        "weights": {
            "micro_batches": asdict(measurement.micro_batches),
            "samples": asdict(measurement.samples),
            "running_statistics": measurement.running and asdict(measurement.running),
        },
    }
