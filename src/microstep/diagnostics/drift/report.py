"""Formats the report and the verdict of check=drift."""

from collections.abc import Sequence

from microstep.diagnostics.drift.training import Distance
from microstep.diagnostics.drift.trajectories import ROUNDING_TOLERANCE, DriftResult
from microstep.utils.tables import format_table
from microstep.utils.text import format_count

MAX_EPOCHS_SHOWN = 20
SMALL_SHARE = 1e-4  #: below it, distances are not written in percent
PAIR_HEADINGS = {"cuts": "cuts", "seeds": "seeds", "cuts_fp64": "cuts, fp64"}
DISTANCE_NOTES = (
    "  weights: relative distance of the changes by training; √2 = 141 % means nothing in common\n"
    "  outputs: relative distance of the outputs on the validation split"
)


def format_distance(value: float) -> str:
    if value == 0:
        return "0"
    return format_tiny(value) if value < SMALL_SHARE else f"{100 * value:#.3g}".rstrip(".") + " %"


def format_tiny(value: float) -> str:
    return f"{value:.0e}".replace("e-0", "e-")


def select_shown_epochs(epochs: int) -> list[int]:
    every = 1 if epochs <= MAX_EPOCHS_SHOWN else -(-epochs // (MAX_EPOCHS_SHOWN - 2))
    return sorted({1, epochs, *range(every, epochs + 1, every)})


def format_distance_table(result: DriftResult) -> str:
    """Return a table with a row an epoch, and a titled block of columns for each quantity."""
    pairs, epochs = list(result.distances), select_shown_epochs(result.epochs)
    blocks = [("weights apart", "weights", pairs), ("outputs apart", "outputs", pairs)]
    if result.counts_predictions:
        blocks.append(("predictions differ", "predictions", ["cuts", "seeds"]))
    columns = [["", "epoch", *map(str, epochs)]]
    for title, quantity, block_pairs in blocks:
        shown = {pair: [result.distances[pair][epoch - 1] for epoch in epochs] for pair in block_pairs}
        cells = [[PAIR_HEADINGS[pair], *format_distance_cells(rows, quantity)] for pair, rows in shown.items()]
        columns.append([f"  {title}", *format_table(zip(*cells, strict=True), ">")])
    return "\n".join(format_table(zip(*columns, strict=True), ">"))


def format_distance_cells(rows: Sequence[Distance], quantity: str) -> list[str]:
    values = [getattr(one, quantity) for one in rows]
    return [f"{value:,}" if quantity == "predictions" else format_distance(value) for value in values]


def format_metrics_table(result: DriftResult) -> str:
    metrics, (cut, whole) = result.trajectories.metrics, format_cuts(result)
    headings = {cut: "cut", whole: "whole", f"seed {result.seed + 1}": "seed"}
    columns = [["metric", *metrics["cut"][-1]]]
    columns += [[head, *(f"{value:.4f}" for value in metrics[name][-1].values())] for head, name in headings.items()]
    for pair in ("cuts", "seeds"):
        differences = result.distances[pair][-1].metrics.values()
        columns.append([f"{pair} apart", *map(format_metric_difference, differences)])
    return "\n".join(format_table(zip(*columns, strict=True), "<>"))


def format_metric_difference(value: float) -> str:
    return "0" if value == 0 else f"{value:.4f}" if value >= SMALL_SHARE else format_tiny(value)


def format_cuts(result: DriftResult) -> tuple[str, str]:
    return f"{result.accum} × {result.micro_batch}", str(result.whole)


def drift_verdict_text(result: DriftResult) -> str:
    cut, whole = format_cuts(result)
    cuts = format_distances(result.distances["cuts"][-1], f" of {result.samples:,} validation predictions")
    seeds = format_distances(result.distances["seeds"][-1], "")
    return (
        f"After {format_count(result.epochs, 'epoch')} in {result.precision} two cuts of the same batch ({cut} and "
        f"{whole}) are {cuts}; two seeds are {seeds}; {format_drift_cause(result)}."
    )


def format_distances(distance: Distance, population: str) -> str:
    weights, outputs = format_distance(distance.weights), format_distance(distance.outputs)
    text = f"{weights} apart in their weights and {outputs} in their outputs"
    if distance.weights == distance.outputs == 0:
        text = "no bit apart"
    count = f"{distance.predictions:,}" if distance.predictions else "none"
    return text if distance.predictions is None else f"{text}, and {count}{population} differ"


def format_drift_cause(result: DriftResult) -> str:
    first, last = (format_distance(result.in_fp64[epoch].weights) for epoch in (0, -1))
    if not result.is_rounding_only:
        unknown = "no layer of the model is known to cause it; run check=accumulation to find the layer"
        reasons = "; ".join(result.inexact_reasons) or unknown
        return f"this is not rounding alone, since in fp64 the cuts are {last} apart, too: {reasons}"
    if result.in_fp64[-1].weights > ROUNDING_TOLERANCE:
        grown = f"{first} apart after the first epoch and {last} after the last"
        return f"in fp64 the cuts are {grown}: what is left is rounding, which this training amplifies"
    return f"in fp64 the cuts are {last} apart: what is left is rounding"
