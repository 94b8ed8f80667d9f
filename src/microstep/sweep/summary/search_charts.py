"""Draws the charts of a search: its history, and a map of the two keys that matter most."""

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes

from microstep.sweep.summary.search import Trials, compute_importance, read_trials
from microstep.sweep.summary.study import SweepTable
from microstep.sweep.summary.svg import GREY, SERIES, Chart, draw
from microstep.utils.text import truncate_middle

MAP_COLORS = 8  #: a color bar of more than 50 would be an image, which the page doesn't load


def draw_search(sweep: SweepTable) -> list[Chart]:
    trials = read_trials(sweep)
    charts, keys = [draw_history(trials)] if trials.scores else [], [*compute_importance(trials)] or [*trials.values]
    return [*charts, draw_map(trials, keys[:2])] if charts and len(keys) > 1 else charts


def draw_history(trials: Trials) -> Chart:
    numbers, scores = list(trials.scores), list(trials.scores.values())

    def paint(axes: Axes) -> None:
        best = (np.maximum if trials.direction == "max" else np.minimum).accumulate(scores)
        axes.plot(numbers, scores, "o", color=SERIES[0], alpha=0.6, markeredgewidth=0)
        axes.step([*numbers, trials.number], [*best, best[-1]], where="post", color=SERIES[1])
        axes.set(xlabel="trial", ylabel=f"validation {trials.metric}", xlim=(0, trials.number + 1))

    caption = f"{len(scores)} of {trials.number} trials have a score; the line is the best so far."
    return draw(paint, 3.3, f"History: {caption}", f"History: {caption}")


def draw_map(trials: Trials, keys: list[str]) -> Chart:
    def paint(axes: Axes) -> None:
        shades, scores = colormaps["viridis"].resampled(MAP_COLORS), list(trials.scores.values())
        dots = axes.scatter(*map(trials.values.get, keys), c=scores, cmap=shades, s=60, edgecolors=GREY, linewidths=0.6)
        axes.get_figure().colorbar(dots, label=f"validation {trials.metric}")
        for side, key in zip("xy", keys, strict=True):
            axes.set(**{f"{side}label": truncate_middle(key, 32)})
            axes.set(**{f"{side}scale": "log"} if key in trials.log_keys else {})

    label = f"{keys[0]} and {keys[1]}: a dot is a trial, its color the score."
    return draw(paint, 3.3, label, label)
