"""The page and the sentence."""

from __future__ import annotations

from collections.abc import Sequence

from microstep.diagnostics.drift.training import Distance
from microstep.diagnostics.drift.trajectories import ROUNDING_TOLERANCE, DriftResult
from microstep.utils.tables import format_table
from microstep.utils.text import format_count

MAX_EPOCHS_SHOWN = 20  #: epochs that the table shows at most
SMALL_SHARE = 1e-4  #: below it a share is no percentage any more
KINDS = ("weights", "outputs")
PAIR_HEADINGS = {"cuts": "cuts", "seeds": "seeds", "cuts_fp64": "cuts, fp64"}
DISTANCE_NOTES = (
    "  weights: how far apart training has moved them, of how far it moves; √2 = 141 % is nothing in common\n"
    "  outputs: how far apart what the models say of the validation split is, of its norm"
)


def format_distance(value: float) -> str:
    """Return a ratio in words: `3.12 %`, or `2e-13` where that says more."""
    if value == 0:
        return "0"
    return format_tiny(value) if value < SMALL_SHARE else f"{100 * value:#.3g}".rstrip(".") + " %"


def format_tiny(value: float) -> str:
    """Return a power of ten in words: `2e-13`."""
    return f"{value:.0e}".replace("e-0", "e-")


def select_shown_epochs(epochs: int) -> list[int]:
    """Return the epochs that the table shows: all, or the first, the last and some at equal distances."""
    every = 1 if epochs <= MAX_EPOCHS_SHOWN else -(-epochs // (MAX_EPOCHS_SHOWN - 2))
    return sorted({1, epochs, *range(every, epochs + 1, every)})


def format_distance_table(result: DriftResult) -> str:
    """Return the distances, a row an epoch; over the columns of each block its name."""
    pairs, shown = result.course.apart, select_shown_epochs(result.epochs)
    blocks = {
        f"{kind} apart": {PAIR_HEADINGS[pair]: format_distance_cells(rows, kind) for pair, rows in pairs.items()}
        for kind in KINDS
    }
    if result.counted:
        blocks["predictions differ"] = {
            pair: format_distance_cells(pairs[pair], "predictions") for pair in ("cuts", "seeds")
        }
    columns = [["", "epoch", *map(str, shown)]]
    for title, block in blocks.items():
        cells = [[head, *(column[epoch - 1] for epoch in shown)] for head, column in block.items()]
        columns.append([f"  {title}", *format_table(zip(*cells, strict=True), ">")])
    return "\n".join(format_table(zip(*columns, strict=True), ">"))


def format_distance_cells(rows: Sequence[Distance], quantity: str) -> list[str]:
    """Return a column's cells, an epoch each."""
    return [
        format_distance(getattr(one, quantity)) if quantity in KINDS else f"{getattr(one, quantity):,}" for one in rows
    ]


def format_metrics_table(result: DriftResult) -> str:
    """Return the validation metrics at the end, and how far they are apart."""
    metrics, pairs = result.course.metrics, result.course.apart
    named = {format_cuts(result)[0]: "cut", format_cuts(result)[1]: "whole", f"seed {result.seed + 1}": "seed"}
    columns = [["metric", *metrics["cut"][-1]]]
    columns += [[head, *(f"{value:.4f}" for value in metrics[name][-1].values())] for head, name in named.items()]
    for pair in ("cuts", "seeds"):
        columns.append([f"{pair} apart", *map(format_metric_difference, pairs[pair][-1].metrics.values())])
    return "\n".join(format_table(zip(*columns, strict=True), "<>"))


def format_metric_difference(value: float) -> str:
    return "0" if value == 0 else f"{value:.4f}" if value >= SMALL_SHARE else format_tiny(value)


def format_cuts(result: DriftResult) -> tuple[str, str]:
    """Return both cuts in words: how many micro-batches of how many samples, and the whole."""
    return f"{result.accum} × {result.micro_batch}", str(result.whole)


def drift_verdict_text(result: DriftResult) -> str:
    """Return what was found, in one sentence."""
    ours, seeds = result.course.apart["cuts"][-1], result.course.apart["seeds"][-1]
    cut, whole, epochs = *format_cuts(result), format_count(result.epochs, "epoch")
    differ = (
        f", and {format_differing_predictions(ours)} of {result.samples:,} validation predictions differ"
        if result.counted
        else ""
    )
    others = f", and {format_differing_predictions(seeds)} differ" if result.counted else ""
    return (
        f"After {epochs} in {result.precision} two cuts of the same batch ({cut} and {whole}) are "
        f"{format_distances(ours)}{differ}; two seeds are {format_distances(seeds)}{others}; "
        f"{format_drift_cause(result)}."
    )


def format_differing_predictions(distances: Distance) -> str:
    return f"{distances.predictions:,}" if distances.predictions else "none"


def format_distances(distances: Distance) -> str:
    """Return the distances of the weights and of the outputs."""
    if distances.weights == distances.outputs == 0:
        return "no bit apart"
    weights, outputs = format_distance(distances.weights), format_distance(distances.outputs)
    return f"{weights} apart in their weights and {outputs} in their outputs"


def format_drift_cause(result: DriftResult) -> str:
    """Return the cause of the distance between the cuts."""
    first, last = result.in_fp64[0].weights, result.in_fp64[-1].weights
    if not result.rounding:
        cause = format_inexact_cause(result)
        return f"this is not rounding alone, for in fp64 the cuts are {format_distance(last)} apart, too: {cause}"
    if last > ROUNDING_TOLERANCE:
        grown = f"{format_distance(first)} apart after the first epoch and {format_distance(last)} after the last"
        return f"in fp64 the cuts are {grown}: what is left is rounding, and this training makes much of it"
    return f"in fp64 the cuts are {format_distance(last)} apart: what is left is rounding"


def format_inexact_cause(result: DriftResult) -> str:
    """Say why cuts differ that should not."""
    unknown = "no layer of the model is known for it, so something computes over a micro-batch; see check=accumulation"
    return "; ".join(result.inexact) or unknown
