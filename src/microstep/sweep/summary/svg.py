"""Draws charts as inline SVG with the colors and the font of the page and without outside addresses."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from io import StringIO
from typing import Any
from warnings import catch_warnings, filterwarnings

from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from microstep.utils.plotting import plain_text

WIDTH = 5.1  #: in inches; about that of a phone, so that the text is readable there
INK, PALE, GRID, GREY, PAPER = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04", "#0a0b05"  #: replaced by CSS variables
SERIES = tuple(f"#0a0c0{n}" for n in range(1, 7))  #: colors of the best settings
MAX_LINES = 300  #: maximum number of lines on one chart
VARIABLES = {INK: "ink", PALE: "pale", GRID: "grid", GREY: "grey", PAPER: "paper"}
VARIABLES |= {color: f"series-{n}" for n, color in enumerate(SERIES, 1)}
CHART_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 11,
    "text.color": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.linewidth": 0.6,
    **dict.fromkeys(("figure.facecolor", "axes.facecolor"), "none"),
    **dict.fromkeys(("axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), PALE),
    **dict.fromkeys(("axes.edgecolor", "grid.color", "xtick.color", "ytick.color"), GRID),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "axes.spines.left"), False),
    **dict.fromkeys(("xtick.major.size", "ytick.major.size", "xtick.minor.size", "ytick.minor.size"), 0),
}


@dataclass(frozen=True)
class Chart:
    """A drawing and the caption under it."""

    svg: str
    caption: str


def get_group_color(index: int) -> str:
    return SERIES[index] if index < len(SERIES) else GREY


def draw(paint: Callable[[Axes], None], height: float, label: str, caption: str) -> Chart:
    """Return a chart `height` inches high. The same input makes the same SVG; a $ in a text does not start a formula.

    A screen reader reads the label, which also keeps the ids in the SVG apart from those of other charts.
    """
    stream = StringIO()
    with plain_text({**CHART_STYLE, "svg.hashsalt": label}), catch_warnings():
        filterwarnings("ignore", message="constrained_layout not applied")
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        paint(figure.add_subplot())
        FigureCanvasSVG(figure).print_figure(stream, format="svg", metadata={"Date": None})
    svg = inline_svg(stream.getvalue())
    return Chart(svg.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1), caption)


def inline_svg(svg: str) -> str:
    """Return matplotlib's SVG without addresses, fixed sizes, fonts, ids of groups and rotations by zero."""
    text = svg[svg.index("<svg") :].replace("xlink:href", "href")
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1">', text, count=1)
    text = re.sub(r'(?<=<g) id="[^"]*"|font-family: [^;>]*; | transform="rotate\(-0 [^)]*\)"', "", text)
    for color, name in VARIABLES.items():
        text = text.replace(color, f"var(--{name})")
    return re.sub(r"\s*\n\s*", " ", text).strip()
