"""A summary as one HTML page that needs nothing besides itself: no script, no font, no picture from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from microstep.summary.charts import charts
from microstep.summary.document import (
    Block,
    Cell,
    Charts,
    Command,
    Document,
    Facts,
    Paragraph,
    Section,
    Table,
    Verbatim,
)
from microstep.summary.drawing import SERIES, Picture
from microstep.summary.study import Study
from microstep.summary.style import STYLE

POLICY = "default-src 'none'; style-src 'unsafe-inline'"  #: the browser itself refuses everything else
KEYED = ("curves",)  #: charts whose colours need a key


def page(document: Document, study: Study) -> str:
    """Return the whole page."""
    pictures, key = charts(study), colour_key(study)
    title = escape(document.title)
    body = "\n".join(
        [
            f'<header><p class="kind">Sweep</p><h1>{title}</h1>',
            *blocks(document.lead, pictures, key),
            "</header>",
            contents(document.sections),
            *(section(found, pictures, key) for found in document.sections),
        ]
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def contents(sections: Sequence[Section]) -> str:
    """Return the links to the sections."""
    links = (f'<a href="#{anchor(found)}">{escape(found.title)}</a>' for found in sections)
    return f'<nav aria-label="Sections">{" ".join(links)}</nav>'


def anchor(found: Section) -> str:
    """Return a section's name in the page: its title may hold anything."""
    return escape(found.title.split()[0].lower())


def section(found: Section, pictures: Mapping[str, Sequence[Picture]], key: str) -> str:
    """Return a section under its heading."""
    inner = "\n".join(blocks(found.blocks, pictures, key))
    name = anchor(found)
    return f'<section id="{name}" class="{name}">\n<h2>{escape(found.title)}</h2>\n{inner}\n</section>'


def blocks(found: Sequence[Block], pictures: Mapping[str, Sequence[Picture]], key: str) -> Iterator[str]:
    """Yield each block."""
    for block in found:
        match block:
            case Paragraph():
                yield f"<p{' class=weighty' if block.weighty else ''}>{escape(block.text)}</p>"
            case Command():
                yield f"<pre><code>{escape(block.text)}</code></pre>"
            case Facts():
                yield facts(block)
            case Table():
                yield table(block)
            case Charts():
                yield drawn(pictures.get(block.name, ()), key if block.name in KEYED else "")


def facts(block: Facts) -> str:
    """Return names and what they are."""
    rows = (f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in block.rows)
    return f"<dl>{''.join(rows)}</dl>"


def drawn(pictures: Sequence[Picture], key: str) -> str:
    """Return charts side by side, as many as there is room for."""
    return f'<div class="charts">{"".join(map(figure_of, pictures))}{key}</div>' if pictures else ""


def figure_of(picture: Picture) -> str:
    """Return a chart with its caption."""
    svg = picture.svg.replace("<svg ", f'<svg role="img" aria-label="{escape(picture.label)}" ', 1)
    return f"<figure>{svg}<figcaption>{escape(picture.caption)}</figcaption></figure>"


def colour_key(study: Study) -> str:
    """Return which colour is which setting."""
    names = [setting.label for setting in study.settings[: len(SERIES)]]
    items = [f'<li><i class="s{n}">{n}</i>{escape(name)}</li>' for n, name in enumerate(names, 1)]
    rest = len(study.settings) - len(names)
    items += [f'<li><i class="rest">+</i>{rest:,} more, and unfinished runs</li>'] if rest else []
    return f'<ul class="key" aria-label="Colours">{"".join(items)}</ul>' if items else ""


def table(block: Table) -> str:
    """Return a table in a box of its own, in which it scrolls where the page is narrow, and its caption under it."""
    kinds = [kind(cell) for cell in (block.rows[0] if block.rows else block.header)]
    header = "".join(f'<th scope="col" class="{k}">{escape(n)}</th>' for k, n in zip(kinds, block.header, strict=True))
    rows = "\n".join(f"<tr>{''.join(map(cell_of, row))}</tr>" for row in block.rows)
    caption, wraps = escape(block.caption), " wraps" if block.wrapping else ""
    text = (
        f'<figure class="table"><div class="box{wraps}" role="region" tabindex="0" aria-label="{caption}"><table>\n'
        f"<thead><tr>{header}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>\n"
        f"<figcaption>{caption}</figcaption></figure>"
    )
    return f"<details><summary>{len(block.rows):,} rows</summary>{text}</details>" if block.folded else text


def cell_of(cell: Cell) -> str:
    """Return a cell."""
    text = cell.text if isinstance(cell, Verbatim) else cell
    return f'<td class="{kind(cell)}">{escape(text)}</td>'


def kind(cell: Cell) -> str:
    """Return how a cell is set: a text as it is, a name that is not to be broken, a word, a number."""
    if isinstance(cell, Verbatim):
        return "code" if " " in cell.text else "code name"
    return "word" if cell.isalpha() else "number"
