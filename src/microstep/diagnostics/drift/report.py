"""The page and the sentence."""

from __future__ import annotations

from collections.abc import Sequence

from microstep.diagnostics.drift.training import Apart
from microstep.diagnostics.drift.trajectories import EXACT, Drift
from microstep.utils.tables import format_table
from microstep.utils.text import format_count

ROWS = 20  #: epochs that the table shows at most
SMALL = 1e-4  #: below it a share is no percentage any more
KINDS = ("weights", "outputs")
HEADS = {"cuts": "cuts", "seeds": "seeds", "cuts_fp64": "cuts, fp64"}
NOTES = (
    "  weights: how far apart training has moved them, of how far it moves; √2 = 141 % is nothing in common\n"
    "  outputs: how far apart what the models say of the validation split is, of its norm"
)


def share(value: float) -> str:
    """Return a ratio in words: `3.12 %`, or `2e-13` where that says more."""
    if value == 0:
        return "0"
    return tiny(value) if value < SMALL else f"{100 * value:#.3g}".rstrip(".") + " %"


def tiny(value: float) -> str:
    """Return a power of ten in words: `2e-13`."""
    return f"{value:.0e}".replace("e-0", "e-")


def epochs_shown(epochs: int) -> list[int]:
    """Return the epochs that the table shows: all, or the first, the last and some at equal distances."""
    every = 1 if epochs <= ROWS else -(-epochs // (ROWS - 2))
    return sorted({1, epochs, *range(every, epochs + 1, every)})


def course_table(result: Drift) -> str:
    """Return the distances, a row an epoch; over the columns of each block its name."""
    pairs, shown = result.course.apart, epochs_shown(result.epochs)
    blocks = {f"{kind} apart": {HEADS[pair]: texts(rows, kind) for pair, rows in pairs.items()} for kind in KINDS}
    if result.counted:
        blocks["predictions differ"] = {pair: texts(pairs[pair], "predictions") for pair in ("cuts", "seeds")}
    columns = [["", "epoch", *map(str, shown)]]
    for title, block in blocks.items():
        cells = [[head, *(column[epoch - 1] for epoch in shown)] for head, column in block.items()]
        columns.append([f"  {title}", *format_table(zip(*cells, strict=True), ">")])
    return "\n".join(format_table(zip(*columns, strict=True), ">"))


def texts(rows: Sequence[Apart], quantity: str) -> list[str]:
    """Return a column's cells, an epoch each."""
    return [share(getattr(one, quantity)) if quantity in KINDS else f"{getattr(one, quantity):,}" for one in rows]


def metrics_table(result: Drift) -> str:
    """Return the validation metrics at the end, and how far they are apart."""
    metrics, pairs = result.course.metrics, result.course.apart
    named = {cuts(result)[0]: "cut", cuts(result)[1]: "whole", f"seed {result.seed + 1}": "seed"}
    columns = [["metric", *metrics["cut"][-1]]]
    columns += [[head, *(f"{value:.4f}" for value in metrics[name][-1].values())] for head, name in named.items()]
    for pair in ("cuts", "seeds"):
        columns.append([f"{pair} apart", *map(gap, pairs[pair][-1].metrics.values())])
    return "\n".join(format_table(zip(*columns, strict=True), "<>"))


def gap(value: float) -> str:
    return "0" if value == 0 else f"{value:.4f}" if value >= SMALL else tiny(value)


def cuts(result: Drift) -> tuple[str, str]:
    """Return both cuts in words: how many micro-batches of how many samples, and the whole."""
    return f"{result.accum} × {result.micro_batch}", str(result.whole)


def sentence(result: Drift) -> str:
    """Return what was found, in one sentence."""
    ours, seeds = result.course.apart["cuts"][-1], result.course.apart["seeds"][-1]
    cut, whole, epochs = *cuts(result), format_count(result.epochs, "epoch")
    differ = f", and {counted(ours)} of {result.samples:,} validation predictions differ" if result.counted else ""
    others = f", and {counted(seeds)} differ" if result.counted else ""
    return (
        f"After {epochs} in {result.precision} two cuts of the same batch ({cut} and {whole}) are "
        f"{distance(ours)}{differ}; two seeds are {distance(seeds)}{others}; {verdict(result)}."
    )


def counted(distances: Apart) -> str:
    return f"{distances.predictions:,}" if distances.predictions else "none"


def distance(distances: Apart) -> str:
    """Return how far weights and outputs are apart."""
    if distances.weights == distances.outputs == 0:
        return "no bit apart"
    return f"{share(distances.weights)} apart in their weights and {share(distances.outputs)} in their outputs"


def verdict(result: Drift) -> str:
    """Say what the cuts' distance is due to."""
    first, last = result.in_fp64[0].weights, result.in_fp64[-1].weights
    if not result.rounding:
        return f"this is not rounding alone, for in fp64 the cuts are {share(last)} apart, too: {cause(result)}"
    if last > EXACT:
        grown = f"{share(first)} apart after the first epoch and {share(last)} after the last"
        return f"in fp64 the cuts are {grown}: what is left is rounding, and this training makes much of it"
    return f"in fp64 the cuts are {share(last)} apart: what is left is rounding"


def cause(result: Drift) -> str:
    """Say why cuts differ that should not."""
    unknown = "no layer of the model is known for it, so something computes over a micro-batch; see check=accumulation"
    return "; ".join(result.inexact) or unknown
