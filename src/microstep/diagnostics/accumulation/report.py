"""What is found of an experiment's windows, as a page of text and as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from microstep.diagnostics.accumulation.loops import Cause
from microstep.diagnostics.accumulation.measure import Measured
from microstep.diagnostics.accumulation.sample_weights import Shares
from microstep.utils.tables import format_fields, format_table
from microstep.utils.text import truncate_middle

MICRO_BATCHES = 16  #: up to which all are shown
ROWS = 30  #: layers up to which all are shown
LONGEST = 44  #: letters of a layer's name


@dataclass(frozen=True)
class Looked:
    """An experiment that was looked at, and what was found in each window."""

    rule: str
    model: str
    summary: dict[str, str]
    parameters: dict[str, int]  #: by layer
    windows: list[Measured]


def page(looked: Looked) -> str:
    """Return everything but the sentence."""
    rows = looked.summary | {one.window.name: cut(one) for one in looked.windows}
    return "\n".join(
        [
            format_fields(rows),
            "\nthe gradient of micro-batches against that of one big batch: relative difference",
            *format_table([["layer", "parameters", *heads(looked)], *layer_rows(looked)], "<>"),
            "\nwhy: each cause alone, the others switched off (– where it doesn't occur)",
            *format_table([["cause", *heads(looked)], *cause_rows(looked)], "<>"),
            *units(looked),
            "\nwhat each micro-batch weighs in the gradient (and should weigh)",
            *format_table(share_rows(looked, [one.micro_batches for one in looked.windows]), "<>"),
            *running(looked),
        ]
    )


def heads(looked: Looked) -> list[str]:
    return [one.window.name for one in looked.windows]


def cut(one: Measured) -> str:
    sizes, samples = one.window.shape.sizes, one.window.shape.samples
    equal = f"{len(sizes)} × {sizes[0]}" if len(set(sizes)) == 1 else " + ".join(map(str, sizes))
    if len(sizes) > 8 and len(set(sizes)) > 1:
        equal = f"{len(sizes) - 1} × {sizes[0]} + {sizes[-1]}"
    return f"{equal} = {samples} samples"


def layer_rows(looked: Looked) -> list[list[str]]:
    """Return a row a layer, in the model's order; of many those that differ most; the last is of all together."""
    names = list(looked.parameters)
    worst = sorted(names, key=lambda name: -max(one.layers[name] for one in looked.windows))[:ROWS]
    rows = [layer_row(name, looked) for name in names if name in worst]
    if len(names) > ROWS:
        rows.append([f"… {len(names) - ROWS} more, closer", "", *[""] * len(looked.windows)])
    total = f"{sum(looked.parameters.values()):,}"
    return [*rows, ["all", total, *(size(one.total) for one in looked.windows)]]


def layer_row(name: str, looked: Looked) -> list[str]:
    sizes = (size(one.layers[name]) for one in looked.windows)
    return [truncate_middle(name, LONGEST), f"{looked.parameters[name]:,}", *sizes]


def cause_rows(looked: Looked) -> list[list[str]]:
    """Return a row a cause, and one of what is left without any."""
    causes = [[cause.value, *(alone(one, cause) for one in looked.windows)] for cause in Cause]
    return [*causes, ["none of these", *(size(one.rest) for one in looked.windows)]]


def alone(one: Measured, cause: Cause) -> str:
    return size(one.alone[cause]) if cause in one.alone else "–"


def share_rows(looked: Looked, shares: Sequence[Shares | None]) -> list[list[str]]:
    """Return the head and a row for each micro-batch; if there are very many, for the first ones and the last."""
    most = max(len(one.window.batches) for one in looked.windows)
    told = range(most) if most <= MICRO_BATCHES else [*range(MICRO_BATCHES - 1), most - 1]
    return [["micro-batch", *heads(looked)], *([str(n + 1), *(share(one, n) for one in shares)] for n in told)]


def share(shares: Shares | None, number: int) -> str:
    """Return what one micro-batch weighs and should weigh; empty if the window has no such micro-batch."""
    if shares is None or number >= len(shares.due):
        return ""
    return f"{shares.measured[number]:.4f} ({shares.due[number]:.4f})"


def units(looked: Looked) -> list[str]:
    """Return a remark on the one cause whose size isn't the gradient's, where it occurs."""
    there = any(Cause.STATISTICS in one.alone for one in looked.windows)
    return ["  (running statistics: relative to themselves, not to the gradient)"] if there else []


def running(looked: Looked) -> list[str]:
    """Return what each micro-batch weighs in running statistics, where there are some."""
    shares = [one.running for one in looked.windows]
    if not any(shares):
        return []
    title = "\nwhat each micro-batch weighs in BatchNorm's running statistics (and would, in one big batch)"
    return [title, *format_table(share_rows(looked, shares), "<>")]


def size(value: float) -> str:
    """Return a relative difference, legible where it is large."""
    return "0" if value == 0 else f"{value:.4f}" if value >= 0.001 else f"{value:.0e}"


def numbers(looked: Looked) -> dict[str, Any]:
    """Return the same for JSON."""
    return {"rule": looked.rule, "model": looked.model, "windows": [plain(one) for one in looked.windows]}


def plain(one: Measured) -> dict[str, Any]:
    return {
        "name": one.window.name,
        "micro_batches": list(one.window.shape.sizes),
        "exact": one.exact,
        "difference": one.total,
        "layers": one.layers,
        "causes": {cause.name.lower(): value for cause, value in one.alone.items()},
        "without_causes": one.rest,
        "unexplained": one.unexplained or None,
        "weights": {
            "micro_batches": asdict(one.micro_batches),
            "samples": asdict(one.samples),
            "running_statistics": one.running and asdict(one.running),
        },
    }
