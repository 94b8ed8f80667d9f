"""Draws the plot of check=precision."""

from math import isfinite, log10
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from microstep.training.profiling.profile import Profile
from microstep.training.profiling.recommendation import MAX_NOISE_SHARE, format_percent
from microstep.utils.plotting import BLUE, INK, ORANGE, new_figure, png_bytes

WIDTH, ROW, MARGIN = 8.2, 0.42, 1.15  #: inches
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
ABOVE_POINT: dict[str, Any] = {"xytext": (0, 6), "textcoords": "offset points", "ha": "center"}


def draw_precision_plot(profile: Profile) -> bytes:
    """Return a PNG with three panels: speed-up, rounding error beside the gradient's noise, and memory."""
    names = list(profile.measured)
    figure = new_figure(WIDTH, MARGIN + ROW * max(2, len(names)))
    speed, drift, memory = figure.subplots(1, 3, sharey=True)
    times = [profile.speed_up(name) or 0.0 for name in names]
    draw_bar_panel(speed, "speed-up against fp32", names, times, [f"{value:.2f} ×" for value in times])
    draw_rounding_panel(drift, profile, names)
    sizes = [profile.measured[name].peak_bytes / 2**20 for name in names]
    draw_bar_panel(memory, "memory at peak, MiB", names, sizes, [f"{value:,.1f}" for value in sizes])
    return png_bytes(figure)


def draw_bar_panel(axes: Axes, title: str, names: list[str], values: list[float], labels: list[str]) -> None:
    bars = axes.barh(range(len(names)), values, color=BLUE, height=0.62)
    axes.bar_label(bars, labels, padding=3, fontsize=9, color=INK)
    axes.set_xlim(0, 1.35 * max(values, default=1.0))
    style_bar_axes(axes, title, names)


def draw_rounding_panel(axes: Axes, profile: Profile, names: list[str]) -> None:
    """Draw the distance of each gradient from fp64's on a logarithmic axis, with the noise and its tenth."""
    values = [profile.measured[name].accuracy.gradient_drift for name in names]
    drawn = [value for value in [*values, profile.noise] if isfinite(value) and value > 0]
    left, right = min(drawn, default=1e-8) / 50, max(drawn, default=1.0) * 3
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(numticks=5))
    axes.xaxis.set_major_formatter(lambda value, _: f"10{str(round(log10(value))).translate(SUPERSCRIPTS)}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(left, right)
    for row, value in enumerate(values):
        shown = min(max(value, left), right)
        axes.hlines(row, left, shown, color=BLUE, linewidth=1.2)
        axes.plot([shown], [row], "o", color=BLUE, markersize=6)
        axes.annotate(format_percent(value), (shown, row), fontsize=9, color=INK, **ABOVE_POINT)
    axes.axvspan(MAX_NOISE_SHARE * profile.noise, right, color=ORANGE, alpha=0.12, linewidth=0)
    axes.axvline(profile.noise, color=ORANGE, linewidth=1.6)
    noise = f"line: the gradient's noise, {format_percent(profile.noise)}"
    axes.set_xlabel(f"{noise}\nshaded: not far below it", fontsize=8.5, color=INK)
    style_bar_axes(axes, "gradient off by", names)


def style_bar_axes(axes: Axes, title: str, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), names, color=INK)
    axes.set_ylim(len(names) - 0.4, -0.65)
    axes.set_title(title, fontsize=10, loc="left", color=INK)
    axes.tick_params(labelsize=8.5, colors=INK, length=2)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
