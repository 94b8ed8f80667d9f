"""Style of all images: readable at 700 pixels, two panels side by side."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
OURS, USUAL, MENDED, EXACT, GRID = "#1b6ca8", "#c8553d", "#d9a441", "#333333", "#dddddd"
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.edgecolor": "#999999",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


@contextmanager
def picture(name: str, height: float = 3.2, widths: tuple[float, float] = (1, 1)) -> Iterator[tuple[Axes, Axes]]:
    """Yield two panels; save them as docs/images/tips-<name>.png."""
    with rc_context(STYLE):
        figure = Figure(figsize=(8.75, height), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=widths)
        yield left, right
        save(figure, IMAGES / f"tips-{name}.png")


def save(figure: Figure, file: Path) -> None:
    """Write a PNG of few colors, which takes a third of the bytes without a visible difference."""
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=120)
    Image.open(drawn).convert("RGB").quantize(128).save(file, optimize=True)


def bars(axes: Axes, values: dict[str, float], label: str, colours: list[str]) -> None:
    """Draw horizontal bars, the first on top, each with its number."""
    names = list(values)
    drawn = axes.barh(names, list(values.values()), color=colours, height=0.62)
    axes.bar_label(drawn, [label.format(value) for value in values.values()], padding=4)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
