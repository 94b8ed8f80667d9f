"""Draws the distances by epoch."""

from math import nan
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from microstep.diagnostics.drift.report import SMALL_SHARE, format_cuts, format_tiny
from microstep.diagnostics.drift.trajectories import DriftResult
from microstep.utils.plotting import BLUE, GREEN, GREY, GRID, INK, ORANGE, new_figure, plain_text, png_bytes

WIDTH, HEIGHT = 8.2, 4.1  #: inches
PANEL_TITLES = {
    "weights": "weights apart, relative to the change by training",
    "outputs": "validation outputs apart, relative to their norm",
}
COLORS = {"cuts": BLUE, "seeds": ORANGE, "cuts_fp64": GREEN}
MAX_MARKED_EPOCHS = 25  #: of more epochs only lines are drawn


@plain_text()
def draw_drift_plot(result: DriftResult) -> bytes:
    """Return a PNG: weights on the left, outputs on the right, a line a pair, on one logarithmic scale."""
    figure = new_figure(WIDTH, HEIGHT)
    panels: Any = figure.subplots(1, 2, sharey=True)
    for axes, (quantity, title) in zip(panels, PANEL_TITLES.items(), strict=True):
        draw_distances(axes, result, quantity)
        axes.set_title(title, fontsize=10, color=INK, loc="left")
    cut, whole = format_cuts(result)
    figure.suptitle(f"{cut} and {whole}: two cuts of one batch, beside two seeds", color=INK, x=0.01, ha="left")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return png_bytes(figure)


def draw_distances(axes: Axes, result: DriftResult, quantity: str) -> None:
    """Draw one kind of distance by epoch. Zeros are left out: the scale is logarithmic."""
    epochs, marker = range(1, result.epochs + 1), "o" if result.epochs <= MAX_MARKED_EPOCHS else ""
    for pair, rows in result.distances.items():
        values = [getattr(one, quantity) or nan for one in rows]
        label = format_pair_label(pair, result)
        axes.plot(epochs, values, color=COLORS[pair], label=label, marker=marker, ms=3)
    scale_distance_axes(axes, result.epochs)


def format_pair_label(pair: str, result: DriftResult) -> str:
    name = "cuts in fp64" if pair == "cuts_fp64" else f"{pair} in {result.precision}"
    exact = all(one.weights == one.outputs == 0 for one in result.distances[pair])
    return f"{name} (no bit apart)" if exact else name


def scale_distance_axes(axes: Axes, epochs: int) -> None:
    def format_tick(value: float, _: int | None) -> str:
        return format_tiny(value) if value < SMALL_SHARE else f"{100 * value:g} %"

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(numticks=9))
    axes.yaxis.set_major_formatter(FuncFormatter(format_tick))
    axes.yaxis.minorticks_off()
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.set_xlim(0.5, epochs + 0.5)
    axes.set_xlabel("epoch", color=GREY)
    axes.grid(color=GRID, linewidth=0.6)
    axes.tick_params(length=0, labelcolor=GREY)
    axes.spines[:].set_visible(False)
