"""Renders the templates of a summary; names and errors from a run's files stay text in HTML and in Markdown."""

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from microstep.sweep.summary.tables import Code


def render(template: str, **context: Any) -> str:
    """Return a rendered file of `templates`. Values are escaped automatically if its name ends in `.html.j2`."""
    return ENVIRONMENT.get_template(template).render(context)


def plain(text: str) -> str:
    """Return prose with Markdown's special characters escaped."""
    return re.sub(r"([\\`*_\[\]<>|#&~!])", r"\\\1", text)


def code(text: str) -> str:
    """Return a text as Markdown code, fenced by one backtick more than it has in a row."""
    if not text.strip():
        return ""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}"


def markdown_cell(cell: str) -> str:
    """Return a cell of a Markdown table; a bar in code is escaped, because it would end the cell."""
    return re.sub(r"\\(?=\|)", r"\\ ", code(cell)).replace("|", r"\|") if isinstance(cell, Code) else plain(cell)


def cell_class(cell: str) -> str:
    """Return the CSS classes of a cell; those of a name without spaces prevent a line break in it."""
    if isinstance(cell, Code):
        return "code" if " " in cell else "code name"
    return "word" if cell.isalpha() else "number"


ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=lambda name: name is not None and name.endswith(".html.j2"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
ENVIRONMENT.filters |= {function.__name__: function for function in (plain, code, markdown_cell, cell_class)}
ENVIRONMENT.tests["code"] = lambda cell: isinstance(cell, Code)
