"""What a summary is made of, whatever it is written as: sections of paragraphs, commands, tables and charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from microstep.summary.study import Sample

NONE = "–"  #: where there is no number


@dataclass(frozen=True)
class Verbatim:
    """A name, a value or an error as it is, set apart from prose."""

    text: str


Cell = str | Verbatim


@dataclass(frozen=True)
class Paragraph:
    """A line of prose; `weighty`: one that nobody should miss."""

    text: str
    weighty: bool = False


@dataclass(frozen=True)
class Command:
    """Something to type."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows under a header, and a caption that says what is seen."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    wrapping: bool = False  #: whether its verbatim cells are long texts, to be broken
    folded: bool = False  #: whether a page shows it only on demand


@dataclass(frozen=True)
class Facts:
    """Names and what they are."""

    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Charts:
    """The place of pictures, by the name of what they show."""

    name: str


Block = Paragraph | Command | Facts | Table | Charts


@dataclass(frozen=True)
class Section:
    """A heading and what is under it."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Document:
    """A whole summary."""

    title: str
    lead: tuple[Block, ...]
    sections: Sequence[Section]


def figure(value: float | None) -> str:
    """Return a number as people read it: four decimals, fewer of a large one, three digits of a tiny one."""
    if value is None:
        return NONE
    size = abs(value)
    if size >= 1e7 or 0 < size < 5e-5:
        return f"{value:.2e}"
    return f"{value:.4f}" if size < 100 else f"{value:,.1f}"


def signed(value: float) -> str:
    """Return a difference, with its sign and a true minus."""
    return f"+{figure(value)}" if value >= 0 else f"−{figure(-value)}"


def spread(sample: Sample | None, number: str | None = None) -> str:
    """Return mean ± standard deviation; of a single number no ±."""
    if sample is None:
        return NONE
    mean = number or figure(sample.mean)
    return mean if sample.deviation is None else f"{mean} ± {figure(sample.deviation)}"


def whole(value: float | None) -> str:
    """Return a large number without decimals, a small one with one."""
    return NONE if value is None else f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.1f}"


def size(value: float | None) -> str:
    """Return bytes in a unit that fits."""
    if value is None:
        return NONE
    return f"{value / 2**30:,.2f} GiB" if value >= 2**30 else f"{value / 2**20:,.0f} MiB"


def counted(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"
