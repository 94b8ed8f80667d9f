"""A summary as Markdown; whatever a run's files say stays text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby

from microstep.summary.document import Block, Cell, Charts, Command, Document, Facts, Paragraph, Table, Verbatim


def markdown(document: Document) -> str:
    """Return the whole document."""
    parts = [f"# Sweep {code(document.title)}", *blocks(document.lead)]
    for section in document.sections:
        found = list(blocks(section.blocks))
        parts += [f"## {plain(section.title)}", *(found or ["summary.html draws them."])]
    return "\n\n".join(parts) + "\n"


def blocks(found: tuple[Block, ...]) -> Iterator[str]:
    """Yield each block's text; charts have none."""
    for block in found:
        match block:
            case Paragraph():
                yield f"**{plain(block.text)}**" if block.weighty else plain(block.text)
            case Command():
                yield f"    {block.text}"
            case Facts():
                yield "\n".join(f"- {plain(name)}: {code(text)}" for name, text in block.rows)
            case Table():
                yield table(block)
            case Charts():
                continue


def table(block: Table) -> str:
    """Return a table, numbers to the right, its caption under it."""
    first = block.rows[0] if block.rows else ()
    rule = [":--" if isinstance(cell, Verbatim) else "--:" for cell in first] or [":--"] * len(block.header)
    rows = [[plain(name) for name in block.header], rule, *(list(map(cell_text, row)) for row in block.rows)]
    return "\n".join([*(f"| {' | '.join(row)} |" for row in rows), "", f"*{plain(block.caption)}*"])


def cell_text(cell: Cell) -> str:
    """Return a cell; a bar in it, which would end it, is escaped."""
    text = code(cell.text) if isinstance(cell, Verbatim) else plain(cell)
    return text if isinstance(cell, str) else re.sub(r"\\(?=\|)", r"\\ ", text).replace("|", r"\|")


def code(text: str) -> str:
    """Return a text as code, between more backticks than it has in a row."""
    if not text.strip():
        return ""
    fence = "`" * (1 + max((len(list(run)) for mark, run in groupby(text) if mark == "`"), default=0))
    return f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}"


def plain(text: str) -> str:
    """Return prose in which nothing is markup."""
    return re.sub(r"([\\`*_\[\]<>|#&~!])", r"\\\1", text)
