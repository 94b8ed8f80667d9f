"""Draws the charts of a search: its history, and a map of the two keys that matter most."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm
from matplotlib.ticker import NullFormatter

from microstep.sweep.summary.search import Trials, compute_importance, read_trials
from microstep.sweep.summary.study import SweepTable
from microstep.sweep.summary.svg import GREY, SERIES, Chart, draw
from microstep.utils.text import truncate_middle


def draw_search(sweep: SweepTable) -> list[Chart]:
    trials = read_trials(sweep)
    keys = list(compute_importance(trials) or trials.values)[:2]
    charts = [draw_history(trials, sweep)] if trials.scores else []
    if len(keys) > 1 and len({*trials.scores.values()}) > 1:
        charts.append(draw_map(trials, keys, sweep.monitor))
    return charts


def draw_history(trials: Trials, sweep: SweepTable) -> Chart:
    numbers, scores = list(trials.scores), list(trials.scores.values())

    def paint(axes: Axes) -> None:
        best = (np.maximum if sweep.direction == "max" else np.minimum).accumulate(scores)
        axes.plot(numbers, scores, "o", color=SERIES[0], alpha=0.6, markeredgewidth=0)
        axes.step([*numbers, trials.number], [*best, best[-1]], where="post", color=SERIES[1])
        axes.set(xlabel="trial", ylabel=f"validation {sweep.monitor}", xlim=(0, trials.number + 1))

    caption = f"{len(scores)} of {trials.number} trials have a score; the line is the best so far."
    return draw(paint, 3.3, f"History: {caption}", f"History: {caption}")


def draw_map(trials: Trials, keys: list[str], monitor: str) -> Chart:
    scores = list(trials.scores.values())
    steps = BoundaryNorm(np.unique(np.quantile(scores, np.linspace(0, 1, 7))), 256)  # a bad score may lie far from all

    def paint(axes: Axes) -> None:
        x, y = (np.array(trials.values[key]) for key in keys)
        dots = axes.scatter(x, y, c=scores, norm=steps, cmap="viridis", s=60, edgecolors=GREY, linewidths=0.6)
        axes.figure.colorbar(dots, ax=axes, label=f"validation {monitor}", format="%.4g")
        axes.set(xlabel=truncate_middle(keys[0], 32), ylabel=truncate_middle(keys[1], 32))
        for key, letter in zip(keys, "xy", strict=True):
            if key in trials.log_keys:
                axes.set(**{f"{letter}scale": "log"})
                getattr(axes, f"{letter}axis").set(major_formatter="{x:g}", minor_formatter=NullFormatter())

    label = f"{keys[0]} and {keys[1]}: a dot is a trial, its color the score, in sixths."
    return draw(paint, 3.3, label, label)
