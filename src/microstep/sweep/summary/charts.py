"""Draws the charts of a summary: leaderboard, effect of each key, training curves and speed."""

from collections.abc import Sequence
from functools import partial
from itertools import accumulate

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from microstep.sweep.summary.effects import MainEffect, compute_main_effects
from microstep.sweep.summary.reading import SweepRun
from microstep.sweep.summary.search_charts import draw_search
from microstep.sweep.summary.study import RunGroup, SweepTable
from microstep.sweep.summary.svg import GREY, INK, MAX_LINES, PAPER, SERIES, Chart, draw, get_group_color
from microstep.sweep.summary.tables import format_better_direction, format_number
from microstep.utils.text import format_count, truncate_middle

MAX_LEADERBOARD_GROUPS = 20
CHART_LABEL_LETTERS = 44
CURVE_TITLE_LETTERS = 52
LEVEL_LETTERS = 12  #: length of a key's value under an axis
MAX_LEVEL_ROW_LETTERS = 44  #: length of all values under an axis if they are not rotated
Curve = tuple[str, list[float], list[float]]  #: color, x and y


def draw_charts(sweep: SweepTable) -> dict[str, list[Chart]]:
    charts = {"curves": draw_curves(sweep)} if sweep.monitor else {}
    if sweep.groups:
        charts["leaderboard"] = [draw_leaderboard(sweep)]
        charts["main"] = draw_effects(sweep)
        charts["search"] = draw_search(sweep) if sweep.is_search else []
        charts["speed"] = [draw_speed_chart(sweep)]
    return charts


def draw_leaderboard(sweep: SweepTable) -> Chart:
    groups = sweep.groups[:MAX_LEADERBOARD_GROUPS]
    label = f"Leaderboard: {groups[0].label} is first with a mean of {format_number(groups[0].val.mean)}."
    which = f"the best {len(groups)} of {len(sweep.groups)}" if len(groups) < len(sweep.groups) else "all"
    caption = f"A dot is a run, the bar their mean, the line ± one standard deviation; {which} settings."
    x_label = f"validation {sweep.monitor}, {format_better_direction(sweep)}"

    def paint(axes: Axes) -> None:
        for index, group in enumerate(groups):
            paint_group(axes, index, group)
        axes.set_ylim(len(groups) - 0.55, -0.85)
        axes.set_yticks([])
        axes.set_xlabel(x_label)
        axes.margins(x=0.08)

    return draw(paint, 0.66 + 0.46 * len(groups), label, caption)


def paint_group(axes: Axes, index: int, group: RunGroup) -> None:
    sample, color = group.val, get_group_color(index)
    mean, std, ys = sample.mean, sample.std or 0, [index] * len(sample.values)
    axes.plot([mean - std, mean + std], [index, index], color=color, linewidth=1.2, alpha=0.7)
    axes.plot(sample.values, ys, "o", color=color, markersize=6, alpha=0.55, markeredgewidth=0)
    if len(sample.values) > 1:
        axes.plot([mean], [index], "|", color=INK, markersize=13, markeredgewidth=2)
    write = partial(axes.text, y=index - 0.34, size=10, va="center", transform=axes.get_yaxis_transform())
    write(x=0, s=f"{index + 1}  {truncate_middle(group.label, CHART_LABEL_LETTERS)}")
    write(x=1, s=format_number(mean), ha="right")


def draw_effects(sweep: SweepTable) -> list[Chart]:
    effects = [effect for effect in compute_main_effects(sweep) if effect.matches]
    values = [value for effect in effects for match in effect.matches for value in match]
    margin = 0.06 * (max(values) - min(values)) or 0.5 if values else 0
    return [draw_effect(effect, sweep.monitor, (min(values) - margin, max(values) + margin)) for effect in effects]


def draw_effect(effect: MainEffect, monitor: str, limits: tuple[float, float]) -> Chart:
    means = [effect.sample_at(index).mean for index in range(len(effect.levels))]
    pairs = ", ".join(f"{format_number(mean)} at {level}" for level, mean in zip(effect.levels, means, strict=True))
    combinations = format_count(len(effect.matches), "combination")
    caption = f"{effect.key}: mean validation {monitor} (bold) over {combinations} of the other keys (thin)."

    def paint(axes: Axes) -> None:
        for match in effect.matches[:MAX_LINES]:
            axes.plot(match, color=GREY, linewidth=0.9, marker="o", markersize=3, alpha=0.75, markeredgewidth=0)
        axes.plot(means, color=SERIES[0], linewidth=2.4, marker="o", markersize=7, markeredgecolor=PAPER)
        label_levels(axes, effect.levels)
        axes.set_ylim(*limits)
        axes.set_title(truncate_middle(effect.key, CHART_LABEL_LETTERS), loc="left", size=11.5, weight="bold")

    return draw(paint, 3.0, f"Main effect of {effect.key}: {pairs}.", f"{caption} All keys have one scale.")


def label_levels(axes: Axes, levels: Sequence[str]) -> None:
    names = [truncate_middle(level, LEVEL_LETTERS) for level in levels]
    rotated = sum(map(len, names)) + 2 * len(names) > MAX_LEVEL_ROW_LETTERS
    axes.set_xticks(range(len(names)), names, rotation=35 if rotated else 0, ha="right" if rotated else "center")
    axes.set_xlim(-0.35, len(names) - 0.65)
    axes.grid(visible=False, axis="x")


def draw_curves(sweep: SweepTable) -> list[Chart]:
    histories = [(color, history) for color, run in color_runs(sweep)[-MAX_LINES:] if (history := run.saved.epochs)]
    which = f"the best {len(SERIES)} settings in colour, all others grey"
    which = which if len(sweep.groups) > len(SERIES) else "a colour a setting"
    note = f"a line a run, {which}; unfinished runs are grey. What lies far from the coloured curves is cut off."
    charts = []
    for unit, more in (("epoch", ""), ("seconds", " Seconds are of training and validation.")):
        curves = [(color, *make_curve(history, unit, f"val_{sweep.monitor}")) for color, history in histories]
        if curves := [curve for curve in curves if curve[1]]:
            charts.append(draw_curve_chart(f"validation {sweep.monitor} by {unit}", unit, curves, note + more))
    return charts


def color_runs(sweep: SweepTable) -> list[tuple[str, SweepRun]]:
    """Return the runs to draw with their colors, the best last so that they are on top."""
    ranked = [(get_group_color(index), run) for index, group in enumerate(sweep.groups) for run in group.runs]
    rest = [(GREY, run) for run in sweep.runs if run.status in ("running", "failed", "interrupted")]
    return rest + ranked[::-1]


def make_curve(history: Sequence[dict[str, float]], unit: str, column: str) -> tuple[list[float], list[float]]:
    rows = [row for row in history if unit in row and column in row]
    xs = [row[unit] for row in rows]
    return list(accumulate(xs)) if unit == "seconds" else xs, [row[column] for row in rows]


def draw_curve_chart(title: str, unit: str, curves: Sequence[Curve], note: str) -> Chart:
    def paint(axes: Axes) -> None:
        for color, xs, ys in curves:
            width, alpha = (0.8, 0.7) if color == GREY else (1.5, 0.85)
            axes.plot(xs, ys, color=color, linewidth=width, alpha=alpha, marker="o" if len(xs) == 1 else None)
        scale_y_axis(axes, [ys for color, _, ys in curves if color != GREY] or [ys for _, _, ys in curves])
        axes.set_title(truncate_middle(title, CURVE_TITLE_LETTERS), loc="left", size=11.5)
        axes.set_xlabel(unit)
        if unit == "epoch":
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    label = f"{title}: {format_count(len(curves), 'curve')}."
    return draw(paint, 3.3, label, f"{title[0].upper()}{title[1:]}: {note}")


def scale_y_axis(axes: Axes, curves: Sequence[Sequence[float]]) -> None:
    values = [value for ys in curves for value in ys]
    low, high = min(values), max(values)
    if low > 0 and high > 100 * low:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    elif high > low:
        axes.set_ylim(low - 0.04 * (high - low), high + 0.04 * (high - low))


def draw_speed_chart(sweep: SweepTable) -> Chart:

    def paint(axes: Axes) -> None:
        for index, group in reversed(list(enumerate(sweep.groups))):
            paint_speed(axes, index, group)
        axes.set_xlabel("samples per second")
        axes.set_title(f"validation {sweep.monitor}", loc="left", size=11.5)
        axes.margins(0.1)
        axes.xaxis.set_major_locator(MaxNLocator(5))

    title = f"Speed against validation {sweep.monitor}"
    caption = f"{title}: small dots are runs, numbered ones a setting's mean, by rank."
    return draw(paint, 3.3, f"{title}, {format_count(len(sweep.groups), 'setting')}.", caption)


def paint_speed(axes: Axes, index: int, group: RunGroup) -> None:
    speeds, scores, color = group.get_sample("samples_per_second"), group.val, get_group_color(index)
    if speeds is None:
        return
    if len(speeds.values) == len(scores.values) > 1:
        axes.plot(speeds.values, scores.values, "o", color=color, markersize=4, alpha=0.5, markeredgewidth=0)
    mean, numbered, layer = (speeds.mean, scores.mean), index < len(SERIES), 3 - index / 1000
    axes.plot(*mean, "o", color=color, markersize=13 if numbered else 7, markeredgecolor=PAPER, zorder=layer)
    if numbered:
        axes.annotate(str(index + 1), mean, ha="center", va="center", size=10, weight="bold", color=PAPER, zorder=layer)
