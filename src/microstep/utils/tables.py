"""Text tables and CSV."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO


def format_table(rows: Iterable[Sequence[str]], align: str) -> list[str]:
    """Return rows, at least one, as indented lines with aligned columns.

    `align` holds `<` or `>` for each column. The last one also applies to all further columns.
    """
    columns = list(zip(*rows, strict=True))
    sides = align.ljust(len(columns), align[-1])
    widths = [max(map(len, column)) for column in columns]
    padded = [[f"{cell:{s}{w}}" for cell in c] for c, s, w in zip(columns, sides, widths, strict=True)]
    return [f"  {'  '.join(line)}".rstrip() for line in zip(*padded, strict=True)]


def format_fields(fields: Mapping[str, str]) -> str:
    return "\n".join(format_table(fields.items(), "<"))


def csv_bytes(rows: Iterable[Iterable[object]], newline: str = "\r\n") -> bytes:
    """Return rows as CSV in UTF-8. Surrogates, which stand for bytes that are not UTF-8, are escaped."""
    text = StringIO(newline="")
    csv.writer(text, lineterminator=newline).writerows(rows)
    return text.getvalue().encode(errors="backslashreplace")
