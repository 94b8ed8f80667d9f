"""Tables line up, and CSV holds whatever a name may hold."""

from __future__ import annotations

import csv
from io import StringIO

from microstep.utils.tables import csv_bytes, format_table


def test_columns_are_aligned_and_lines_have_no_trailing_space() -> None:
    """The last letter of `align` is that of all further columns."""
    rows = [["", "n", "share"], ["train", "1,203", "7 %"], ["val", "", ""]]
    assert format_table(rows, "<>") == ["             n  share", "  train  1,203    7 %", "  val"]
    assert format_table(rows, "><>") == ["         n      share", "  train  1,203    7 %", "    val"]
    assert format_table(iter(rows), "<")[1] == "  train  1,203  7 %"


def test_csv_gives_back_what_it_was_given() -> None:
    """Quotes, commas and line breaks are quoted, a byte that is not UTF-8 is escaped."""
    rows = [["a,b", 'say "x"', "two\r\nlines"], ["狐", "\udc80", "1"]]
    text = csv_bytes(iter(rows)).decode()
    assert text.endswith("\r\n狐,\\udc80,1\r\n")
    assert next(csv.reader(StringIO(text, newline=""))) == rows[0]
    assert csv_bytes([[1, None]], newline="\n") == b"1,\n"
