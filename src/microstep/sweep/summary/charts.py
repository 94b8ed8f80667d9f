"""The charts of a summary; here the leaderboard and the effect of each key."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from matplotlib.axes import Axes

from microstep.sweep.summary.curves import draw_curves, draw_speed_chart
from microstep.sweep.summary.effects import MainEffect, compute_main_effects
from microstep.sweep.summary.formatting import counted, figure
from microstep.sweep.summary.study import RunGroup, SweepTable
from microstep.sweep.summary.svg import GREY, INK, MAX_LINES, PAPER, SERIES, Chart, draw, get_group_color
from microstep.sweep.summary.tables import format_better_direction
from microstep.utils.text import truncate_middle

MAX_LEADERBOARD_GROUPS = 20  #: settings on the leaderboard's chart
CHART_LABEL_LETTERS = 44  #: of a setting's label on a chart
LEVEL_LETTERS = 12  #: letters of a key's value under an axis


def draw_charts(sweep: SweepTable) -> dict[str, list[Chart]]:
    """Return the charts by the name of their section."""
    found = {"curves": draw_curves(sweep)} if sweep.monitor else {}
    if sweep.settings:
        found |= {
            "leaderboard": [draw_leaderboard(sweep)],
            "main": draw_effects(sweep),
            "speed": [draw_speed_chart(sweep)],
        }
    return found


def draw_leaderboard(sweep: SweepTable) -> Chart:
    """Draw each setting's runs as dots on a line of its own, its name above them."""
    shown = sweep.settings[:MAX_LEADERBOARD_GROUPS]
    label = f"Leaderboard: {shown[0].label} is first with a mean of {figure(shown[0].val.mean)}."
    which = f"the best {len(shown)} of {len(sweep.settings)}" if len(shown) < len(sweep.settings) else "all"
    caption = f"A dot is a run, the bar their mean, the line ± one standard deviation; {which} settings."
    axis = f"validation {sweep.monitor}, {format_better_direction(sweep)}"
    return draw(partial(paint_leaderboard, shown, axis), 0.66 + 0.46 * len(shown), label, caption)


def paint_leaderboard(settings: Sequence[RunGroup], label: str, axes: Axes) -> None:
    for index, setting in enumerate(settings):
        paint_setting(axes, index, setting)
    axes.set_ylim(len(settings) - 0.55, -0.85)
    axes.set_yticks([])
    axes.set_xlabel(label)
    axes.margins(x=0.08)


def paint_setting(axes: Axes, index: int, setting: RunGroup) -> None:
    """Draw one line of the leaderboard."""
    sample, colour = setting.val, get_group_color(index)
    mean, off, ys = sample.mean, sample.deviation or 0, [index] * len(sample.values)
    axes.plot([mean - off, mean + off], [index, index], color=colour, linewidth=1.2, alpha=0.7)
    axes.plot(sample.values, ys, "o", color=colour, markersize=6, alpha=0.55, markeredgewidth=0)
    if len(sample.values) > 1:
        axes.plot([mean], [index], "|", color=INK, markersize=13, markeredgewidth=2)
    write = partial(axes.text, y=index - 0.34, size=10, va="center", transform=axes.get_yaxis_transform())
    write(x=0, s=f"{index + 1}  {truncate_middle(setting.label, CHART_LABEL_LETTERS)}")
    write(x=1, s=figure(mean), ha="right")


def draw_effects(sweep: SweepTable) -> list[Chart]:
    """Draw each key's effect, all of them on one scale."""
    found = [effect for effect in compute_main_effects(sweep) if effect.matches]
    values = [value for effect in found for match in effect.matches for value in match]
    margin = 0.06 * (max(values) - min(values)) or 0.5 if values else 0
    return [effect_chart(effect, sweep.monitor, (min(values) - margin, max(values) + margin)) for effect in found]


def effect_chart(effect: MainEffect, monitor: str, limits: tuple[float, float]) -> Chart:
    """Draw a line for each combination of the other keys, and their mean."""
    means = [effect.at(index).mean for index in range(len(effect.levels))]
    pairs = ", ".join(f"{figure(mean)} at {level}" for level, mean in zip(effect.levels, means, strict=True))
    caption = (
        f"{effect.key}: mean validation {monitor} (bold) over {counted(len(effect.matches), 'combination')} of "
        "the other keys (thin). All keys have one scale."
    )
    return draw(partial(paint_effect, effect, means, limits), 3.0, f"Main effect of {effect.key}: {pairs}.", caption)


def paint_effect(effect: MainEffect, means: Sequence[float], limits: tuple[float, float], axes: Axes) -> None:
    xs = range(len(means))
    for match in effect.matches[:MAX_LINES]:
        axes.plot(xs, match, color=GREY, linewidth=0.9, marker="o", markersize=3, alpha=0.75, markeredgewidth=0)
    axes.plot(xs, means, color=SERIES[0], linewidth=2.4, marker="o", markersize=7, markeredgecolor=PAPER)
    label_levels(axes, effect.levels)
    axes.set_ylim(*limits)
    axes.set_title(truncate_middle(effect.key, CHART_LABEL_LETTERS), loc="left", size=11.5, weight="bold")


def label_levels(axes: Axes, levels: Sequence[str]) -> None:
    """Write a key's values under the axis, rotated if they are long."""
    names = [truncate_middle(level, LEVEL_LETTERS) for level in levels]
    rotated = sum(map(len, names)) + 2 * len(names) > 44
    axes.set_xticks(range(len(names)), names, rotation=35 if rotated else 0, ha="right" if rotated else "center")
    axes.set_xlim(-0.35, len(names) - 0.65)
    axes.grid(visible=False, axis="x")
