"""Charts of the training curves and of the speed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from microstep.sweep.summary.formatting import counted
from microstep.sweep.summary.reading import SweepRun
from microstep.sweep.summary.study import RunGroup, SweepTable
from microstep.sweep.summary.svg import GREY, MAX_LINES, PAPER, SERIES, Chart, draw, get_group_color
from microstep.utils.text import truncate_middle

CURVE_TITLE_LETTERS = 52  #: of a title
Curve = tuple[str, list[float], list[float]]  #: colour, x and y


def draw_curves(sweep: SweepTable) -> list[Chart]:
    """Draw validation by epoch and by seconds, as far as any run has them."""
    histories = [(colour, history) for colour, run in color_runs(sweep)[-MAX_LINES:] if (history := run.saved.epochs)]
    which = f"the best {len(SERIES)} settings in colour, all others grey"
    which = which if len(sweep.settings) > len(SERIES) else "a colour a setting"
    note = f"a line a run, {which}; unfinished runs are grey. What lies far from the coloured curves is cut off."
    charts = []
    for unit, more in (("epoch", ""), ("seconds", " Seconds are of training and validation.")):
        found = [(colour, *make_curve(history, unit, f"val_{sweep.monitor}")) for colour, history in histories]
        if lines := [curve for curve in found if curve[1]]:
            charts.append(curve_chart(f"validation {sweep.monitor} by {unit}", unit, lines, note + more))
    return charts


def color_runs(sweep: SweepTable) -> list[tuple[str, SweepRun]]:
    """Return the runs to draw with their colours, the best last so that they are on top."""
    ranked = [(get_group_color(index), run) for index, setting in enumerate(sweep.settings) for run in setting.runs]
    rest = [(GREY, run) for run in sweep.runs if run.status in ("running", "failed", "interrupted")]
    return rest + ranked[::-1]


def make_curve(history: Sequence[dict[str, float]], unit: str, column: str) -> tuple[list[float], list[float]]:
    """Return epochs, or seconds added up, and a metric; rows without either are left out."""
    rows = [row for row in history if unit in row and column in row]
    xs = [row[unit] for row in rows]
    return list(accumulate(xs)) if unit == "seconds" else xs, [row[column] for row in rows]


def curve_chart(title: str, unit: str, lines: Sequence[Curve], note: str) -> Chart:
    caption = f"{title[0].upper()}{title[1:]}: {note}"
    return draw(partial(paint_curves, title, unit, lines), 3.3, f"{title}: {counted(len(lines), 'curve')}.", caption)


def paint_curves(title: str, unit: str, lines: Sequence[Curve], axes: Axes) -> None:
    for colour, xs, ys in lines:
        width, alpha = (0.8, 0.7) if colour == GREY else (1.5, 0.85)
        axes.plot(xs, ys, color=colour, linewidth=width, alpha=alpha, marker="o" if len(xs) == 1 else None)
    scale_curve_axis(axes, [ys for colour, _, ys in lines if colour != GREY] or [ys for _, _, ys in lines])
    axes.set_title(truncate_middle(title, CURVE_TITLE_LETTERS), loc="left", size=11.5)
    axes.set_xlabel(unit)
    if unit == "epoch":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def scale_curve_axis(axes: Axes, curves_values: Sequence[Sequence[float]]) -> None:
    """Fit the axis to some curves; it is logarithmic if they cover more than two magnitudes."""
    values = [value for ys in curves_values for value in ys]
    low, high = min(values), max(values)
    if low > 0 and high > 100 * low:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    elif high > low:
        axes.set_ylim(low - 0.04 * (high - low), high + 0.04 * (high - low))


def draw_speed_chart(sweep: SweepTable) -> Chart:
    """Draw each setting's speed against the metric, numbered by rank."""
    title = f"Speed against validation {sweep.monitor}"
    caption = f"{title}: small dots are runs, numbered ones a setting's mean, by rank."
    return draw(partial(paint_speeds, sweep), 3.3, f"{title}, {counted(len(sweep.settings), 'setting')}.", caption)


def paint_speeds(sweep: SweepTable, axes: Axes) -> None:
    for index, setting in reversed(list(enumerate(sweep.settings))):
        paint_speed(axes, index, setting)
    axes.set_xlabel("samples per second")
    axes.set_title(f"validation {sweep.monitor}", loc="left", size=11.5)
    axes.margins(0.1)
    axes.xaxis.set_major_locator(MaxNLocator(5))


def paint_speed(axes: Axes, index: int, setting: RunGroup) -> None:
    """Draw a setting's runs and their mean."""
    speeds, colour = setting.sample("samples_per_second"), get_group_color(index)
    if speeds is None:
        return
    if len(speeds.values) == len(setting.val.values) > 1:
        axes.plot(speeds.values, setting.val.values, "o", color=colour, markersize=4, alpha=0.5, markeredgewidth=0)
    x, y, ranked, layer = speeds.mean, setting.val.mean, index < len(SERIES), 3 - index / 1000
    axes.plot([x], [y], "o", color=colour, markersize=13 if ranked else 7, markeredgecolor=PAPER, zorder=layer)
    if ranked:
        style: dict[str, Any] = {"size": 10, "weight": "bold", "color": PAPER, "zorder": layer}
        axes.annotate(str(index + 1), (x, y), ha="center", va="center", **style)
