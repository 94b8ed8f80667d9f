"""The pictures of a summary; here those of who leads, and of what each key did."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from microstep.files import shortened
from microstep.summary.curves import curves, speed
from microstep.summary.document import counted, figure
from microstep.summary.drawing import GREY, INK, LINES, PAPER, SERIES, Picture, canvas, colour_of
from microstep.summary.effects import Effect, main_effects
from microstep.summary.study import Setting, Study
from microstep.summary.tables import better

LEADERS = 20  #: settings on the leaderboard's picture
LETTERS = 44  #: of a setting's label on a picture
LEVEL = 12  #: of a key's value under an axis


def charts(study: Study) -> dict[str, list[Picture]]:
    """Return the pictures by the places that the document has for them."""
    found = {"leaderboard": [], "effects": [], "curves": curves(study), "speed": []} if study.monitor else {}
    if study.settings:
        found["leaderboard"], found["speed"] = [leaderboard(study)], [speed(study)]
        found["effects"] = effects(study)
    return found


def leaderboard(study: Study) -> Picture:
    """Draw each setting's runs as dots on a line of its own, its name above them."""
    shown, into = study.settings[:LEADERS], list[str]()
    with canvas("leaderboard", 0.66 + 0.46 * len(shown), into) as axes:
        for place, setting in enumerate(shown):
            draw_setting(axes, place, setting)
        axes.set_ylim(len(shown) - 0.55, -0.85)
        axes.set_yticks([])
        axes.set_xlabel(f"validation {study.monitor}, {better(study)}")
        axes.margins(x=0.08)
    which = f"the best {len(shown)} of {len(study.settings)}" if len(shown) < len(study.settings) else "all"
    label = f"Leaderboard: {shown[0].label} is first with a mean of {figure(shown[0].val.mean)}."
    return Picture(
        into[0], label, f"A dot is a run, the bar their mean, the line ± one standard deviation; {which} settings."
    )


def draw_setting(axes: Axes, place: int, setting: Setting) -> None:
    """Draw one line of the leaderboard."""
    sample, colour = setting.val, colour_of(place)
    off = sample.deviation or 0
    axes.plot([sample.mean - off, sample.mean + off], [place, place], color=colour, linewidth=1.2, alpha=0.7)
    axes.plot(
        sample.values, [place] * len(sample.values), "o", color=colour, markersize=6, alpha=0.55, markeredgewidth=0
    )
    if len(sample.values) > 1:
        axes.plot([sample.mean], [place], "|", color=INK, markersize=13, markeredgewidth=2)
    above, line = place - 0.34, axes.get_yaxis_transform()
    axes.text(0, above, f"{place + 1}  {shortened(setting.label, LETTERS)}", size=10, va="center", transform=line)
    axes.text(1, above, figure(sample.mean), size=10, va="center", ha="right", transform=line)


def effects(study: Study) -> list[Picture]:
    """Draw each key's effect, all of them on one scale."""
    found = [effect for effect in main_effects(study) if effect.matches]
    values = [value for effect in found for match in effect.matches for value in match]
    margin = 0.06 * (max(values) - min(values)) or 0.5 if values else 0
    return [effect_of(effect, study, (min(values) - margin, max(values) + margin)) for effect in found]


def effect_of(effect: Effect, study: Study, limits: tuple[float, float]) -> Picture:
    """Draw a line a combination of the other keys, and their mean."""
    into, places = list[str](), range(len(effect.levels))
    means = [effect.at(place).mean for place in places]
    with canvas(f"effect of {effect.key}", 3.0, into) as axes:
        for match in effect.matches[:LINES]:
            axes.plot(places, match, color=GREY, linewidth=0.9, marker="o", markersize=3, alpha=0.75, markeredgewidth=0)
        axes.plot(places, means, color=SERIES[0], linewidth=2.4, marker="o", markersize=7, markeredgecolor=PAPER)
        draw_levels(axes, effect.levels)
        axes.set_ylim(*limits)
        axes.set_title(shortened(effect.key, LETTERS), loc="left", size=11.5, weight="bold")
    means_said = ", ".join(f"{figure(mean)} at {level}" for level, mean in zip(effect.levels, means, strict=True))
    caption = (
        f"{effect.key}: mean validation {study.monitor} (bold) over {counted(len(effect.matches), 'combination')} of "
        "the other keys (thin). All keys have one scale."
    )
    return Picture(into[0], f"Main effect of {effect.key}: {means_said}.", caption)


def draw_levels(axes: Axes, levels: Sequence[str]) -> None:
    """Write a key's values under the axis, aslant where they are long."""
    names = [shortened(level, LEVEL) for level in levels]
    slanting = sum(map(len, names)) + 2 * len(names) > 44
    axes.set_xticks(range(len(names)), names, rotation=35 if slanting else 0, ha="right" if slanting else "center")
    axes.set_xlim(-0.35, len(names) - 0.65)
    axes.grid(visible=False, axis="x")
