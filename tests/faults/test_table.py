"""docs/reliability.md and the tests in this directory list the same faults."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
TABLE = HERE.parents[1] / "docs" / "reliability.md"


def in_the_table() -> list[str]:
    """Return every test that the table names, as `file::test`."""
    rows = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    return re.findall(r"`(test_\w+::test_\w+)`", "\n".join(rows))


def in_the_folder() -> list[str]:
    """Return every test of faults that there is."""
    files = {
        file: ast.parse(file.read_text(encoding="utf-8"))
        for file in HERE.glob("test_*.py")
        if file != HERE / "test_table.py"
    }
    found = [(file, node) for file, tree in files.items() for node in tree.body if isinstance(node, ast.FunctionDef)]
    return [f"{file.stem}::{node.name}" for file, node in found if node.name.startswith("test_")]


def test_the_table_and_the_tests_agree() -> None:
    """Each fault in the table has its test, each test of a fault is in the table, once."""
    assert sorted(in_the_table()) == sorted(in_the_folder())


def test_every_row_names_a_test() -> None:
    """Each fault that is claimed to be survived has a test."""
    rows = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if re.match(r"\| (?!fault|-)", line)]
    assert rows
    assert all("::test_" in row for row in rows)
