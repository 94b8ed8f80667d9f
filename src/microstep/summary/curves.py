"""The pictures of how training went, and of what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from microstep.files import shortened
from microstep.summary.document import counted
from microstep.summary.drawing import GREY, LINES, PAPER, SERIES, Picture, canvas, colour_of
from microstep.summary.reading import Run, epochs_of
from microstep.summary.study import Setting, Study

LETTERS = 52  #: of a title
CLOCK = "Seconds are of training and validation."
Curve = tuple[list[float], list[float]]  #: x and y
Curves = list[tuple[str, Curve]]  #: with its colour, those that matter most last


def curves(study: Study) -> list[Picture]:
    """Draw validation by epoch and by seconds."""
    histories = [(colour, history) for colour, run in coloured(study)[-LINES:] if (history := epochs_of(run))]
    column, many = f"val_{study.monitor}", len(study.settings) > len(SERIES)
    by_epoch = [(colour, by(history, "epoch", column)) for colour, history in histories]
    by_second = [(colour, by(history, "seconds", column)) for colour, history in histories]
    which = f"the best {len(SERIES)} settings in colour, all others grey" if many else "a colour a setting"
    said = f"a line a run, {which}; unfinished runs are grey. What lies far from the coloured curves is cut off."
    drawn = [
        curve_picture(f"validation {study.monitor} by epoch", "epoch", by_epoch, said),
        curve_picture(f"validation {study.monitor} by seconds", "seconds", by_second, f"{said} {CLOCK}"),
    ]
    return [picture for picture in drawn if picture]


def coloured(study: Study) -> list[tuple[str, Run]]:
    """Return the runs to be drawn with their colours, the best last: they lie on top."""
    ranked = [(colour_of(place), run) for place, setting in enumerate(study.settings) for run in setting.runs]
    names = {run.name for _, run in ranked}
    rest = [(GREY, run) for run in study.runs if run.status in ("running", "failed", "interrupted")]
    return [pair for pair in rest if pair[1].name not in names] + ranked[::-1]


def by(history: Sequence[dict[str, float]], clock: str, column: str) -> Curve:
    """Return a metric against epochs, or against seconds added up; rows without either are left out."""
    rows = [row for row in history if clock in row and column in row]
    clocks = [row[clock] for row in rows]
    return list(accumulate(clocks)) if clock == "seconds" else clocks, [row[column] for row in rows]


def curve_picture(title: str, clock: str, found: Curves, said: str) -> Picture | None:
    """Draw curves; None where there are none."""
    lines = [(colour, xs, ys) for colour, (xs, ys) in found if xs]
    if not lines:
        return None
    into = list[str]()
    with canvas(title, 3.3, into) as axes:
        for colour, xs, ys in lines:
            thin = colour == GREY
            mark = "o" if len(xs) == 1 else None
            axes.plot(xs, ys, color=colour, linewidth=0.8 if thin else 1.5, alpha=0.7 if thin else 0.85, marker=mark)
        scale(axes, [ys for colour, _, ys in lines if colour != GREY] or [ys for _, _, ys in lines])
        axes.set_title(shortened(title, LETTERS), loc="left", size=11.5)
        axes.set_xlabel(clock)
        if clock == "epoch":
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return Picture(into[0], f"{title}: {counted(len(lines), 'curve')}.", f"{title[0].upper()}{title[1:]}: {said}")


def scale(axes: Axes, found: Sequence[Sequence[float]]) -> None:
    """Let the axis show what matters: the coloured curves; values over several magnitudes get a logarithmic one."""
    values = [value for ys in found for value in ys]
    low, high = min(values), max(values)
    if low > 0 and high > 100 * low:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    elif high > low:
        axes.set_ylim(low - 0.04 * (high - low), high + 0.04 * (high - low))


def speed(study: Study) -> Picture:
    """Draw each setting's speed against what it reaches, a number its rank."""
    into = list[str]()
    with canvas("speed", 3.3, into) as axes:
        for place, setting in reversed(list(enumerate(study.settings))):
            draw_speed(axes, place, setting)
        axes.set_xlabel("samples per second")
        axes.set_title(f"validation {study.monitor}", loc="left", size=11.5)
        axes.margins(0.1)
        axes.xaxis.set_major_locator(MaxNLocator(5))
    caption = f"Speed against validation {study.monitor}: small dots are runs, numbered ones a setting's mean, by rank."
    return Picture(
        into[0], f"Speed against validation {study.monitor}, {counted(len(study.settings), 'setting')}.", caption
    )


def draw_speed(axes: Axes, place: int, setting: Setting) -> None:
    """Draw a setting's runs and their mean."""
    speeds, colour = setting.sample("samples_per_second"), colour_of(place)
    if speeds is None:
        return
    if len(speeds.values) == len(setting.val.values) > 1:
        axes.plot(speeds.values, setting.val.values, "o", color=colour, markersize=4, alpha=0.5, markeredgewidth=0)
    x, y, own = speeds.mean, setting.val.mean, place < len(SERIES)
    above = 3 - place / 1000
    axes.plot([x], [y], "o", color=colour, markersize=13 if own else 7, markeredgecolor=PAPER, zorder=above)
    if own:
        rank = str(place + 1)
        axes.annotate(rank, (x, y), size=10, weight="bold", ha="center", va="center", color=PAPER, zorder=above)
