"""Pictures as SVG that belongs in a page: it takes the page's colours and font, and names no outside address."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from typing import Any
from warnings import catch_warnings, filterwarnings

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

WIDTH = 5.1  #: inches: as wide as a phone, so that its letters are read there
INK, PALE, GRID, GREY, PAPER = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04", "#0a0b05"  #: stand for the page's colours
SERIES = tuple(f"#0a0c0{n}" for n in range(1, 7))  #: of the best settings
LINES = 300  #: drawn at most on one picture
VARIABLES = {INK: "ink", PALE: "pale", GRID: "grid", GREY: "grey", PAPER: "paper"} | {
    colour: f"series-{n}" for n, colour in enumerate(SERIES, 1)
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "text.parse_math": False,
    "font.size": 11,
    "axes.edgecolor": GRID,
    "axes.labelcolor": PALE,
    "text.color": INK,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": PALE,
    "ytick.labelcolor": PALE,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
}


@dataclass(frozen=True)
class Picture:
    """A chart, what a screen reader says of it, and the caption under it."""

    svg: str
    label: str
    caption: str


def colour_of(place: int) -> str:
    """Return the colour of a setting by its place: the best few have their own."""
    return SERIES[place] if place < len(SERIES) else GREY


@contextmanager
def canvas(name: str, height: float, into: list[str]) -> Iterator[Axes]:
    """Yield axes to draw on; afterwards the picture is in the list.

    Texts are drawn as they are: a $ starts no formula, and a glyph that the font lacks is no warning.

    Args:
        name: keeps what the picture refers to within itself apart from other pictures of the page.
        height: in inches.
    """
    with rc_context({**STYLE, "svg.hashsalt": name}), catch_warnings():
        filterwarnings("ignore", message="Glyph .* missing from font")
        filterwarnings("ignore", message="constrained_layout not applied")
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        yield figure.add_subplot()
        into.append(svg_of(figure))


def svg_of(figure: Figure) -> str:
    """Return a figure as SVG for a page. The same figure makes the same text."""
    stream = StringIO()
    FigureCanvasSVG(figure).print_figure(stream, format="svg", metadata={"Date": None})
    return homely(stream.getvalue())


def homely(svg: str) -> str:
    """Return matplotlib's SVG without what a page has no use for: addresses, fixed sizes, fonts, doubled names."""
    text = svg[svg.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1">', text, count=1)
    text = re.sub(r'<g id="[^"]*"', "<g", text).replace("xlink:href", "href")
    text = re.sub(r"font-family: [^;>]*; |(?<= transform=)\"rotate\(-0 [^)]*\)\"", "", text).replace(
        " transform=>", ">"
    )
    for colour, name in VARIABLES.items():
        text = text.replace(colour, f"var(--{name})")
    return re.sub(r"\s*\n\s*", " ", text).strip()
