"""The distances by epoch, drawn."""

from __future__ import annotations

from math import nan
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from microstep.diagnostics.drift.report import SMALL_SHARE, format_cuts, format_tiny
from microstep.diagnostics.drift.trajectories import DriftResult
from microstep.utils.plotting import BLUE, GREEN, GREY, GRID, INK, ORANGE, new_figure, plain_text, png_bytes

WIDTH, HEIGHT = 8.2, 4.1  #: inches
PANEL_TITLES = {
    "weights": "weights apart, of what training moves",
    "outputs": "validation outputs apart, of their norm",
}
COLORS = {"cuts": BLUE, "seeds": ORANGE, "cuts_fp64": GREEN}
MAX_MARKED_EPOCHS = 25  #: epochs up to which each is a dot


@plain_text()
def draw_drift_plot(result: DriftResult) -> bytes:
    """Return a PNG: weights on the left, outputs on the right, a line for each pair, on one logarithmic scale."""
    figure = new_figure(WIDTH, HEIGHT)
    panels: Any = figure.subplots(1, 2, sharey=True)
    for axes, (kind, title) in zip(panels, PANEL_TITLES.items(), strict=True):
        draw_distances(axes, result, kind)
        axes.set_title(title, fontsize=10, color=INK, loc="left")
    cut, whole = format_cuts(result)
    figure.suptitle(f"{cut} and {whole}: two cuts of one batch, beside two seeds", color=INK, x=0.01, ha="left")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return png_bytes(figure)


def draw_distances(axes: Axes, result: DriftResult, quantity: str) -> None:
    """Draw one kind of distance by epoch. Where no bit differs there is nothing on such a scale."""
    for pair, rows in result.course.apart.items():
        values = [getattr(one, quantity) or nan for one in rows]
        marker = "o" if len(values) <= MAX_MARKED_EPOCHS else ""
        axes.plot(
            range(1, len(values) + 1),
            values,
            color=COLORS[pair],
            label=format_pair_label(pair, result),
            marker=marker,
            ms=3,
        )
    scale_distance_axes(axes, result.epochs)


def format_pair_label(pair: str, result: DriftResult) -> str:
    """Return what a line is."""
    name = "cuts in fp64" if pair == "cuts_fp64" else f"{pair} in {result.precision}"
    exact = all(one.weights == one.outputs == 0 for one in result.course.apart[pair])
    return f"{name} (no bit apart)" if exact else name


def format_power_of_ten(value: float) -> str:
    """Return a power of ten as the page writes such a share."""
    return format_tiny(value) if value < SMALL_SHARE else f"{100 * value:g} %"


def scale_distance_axes(axes: Axes, epochs: int) -> None:
    """Number the axes in words that the page uses."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(numticks=9))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, place: format_power_of_ten(value)))
    axes.yaxis.minorticks_off()
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.set_xlim(0.5, epochs + 0.5)
    axes.set_xlabel("epoch", color=GREY)
    axes.grid(color=GRID, linewidth=0.6)
    axes.tick_params(length=0, labelcolor=GREY)
    axes.spines[:].set_visible(False)
