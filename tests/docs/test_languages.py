"""A page in two languages says the same in both: whatever is typed, printed, shown or counted."""

from __future__ import annotations

import re
from collections import Counter
from itertools import groupby
from pathlib import Path

import pytest

from tests.conftest import ROOT

CHINESE = ".zh-CN.md"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
TRANSLATED = ("README.md", "docs/commands.md", "docs/why-the-last-backward-weighs-more.md")  #: whatever else may be
PAIRS = {str(page.relative_to(ROOT)).removesuffix(CHINESE) + ".md": page for page in PAGES if page.match("*.zh-CN.md")}

TYPED = re.compile(r"(\$ )?(python|make|tensorboard) ")
COMMENT = re.compile(r" {2,}# ")
HEADING = re.compile(r"^(#+) .*$", re.MULTILINE)
LINK = re.compile(r"(?<!!)\[([^]]+)\]\(([^)]+)\)")
PICTURE = re.compile(r"!\[[^]]+\]\(([^)]+)\)")
CODE = re.compile(r"``.+?``|`[^`]+`", re.DOTALL)  # two backticks hold one
NUMBER = re.compile(r"(?<![\w.])\.?\d[\d.,-]*(?<![.,-])")

both = pytest.mark.parametrize(("english", "chinese"), [(ROOT / name, page) for name, page in PAIRS.items()], ids=PAIRS)


def test_the_pages_are_found() -> None:
    """These pages are there in Chinese, so no test below is empty; each Chinese page has its English one."""
    assert set(TRANSLATED) <= set(PAIRS)
    assert all(commands(ROOT / name) for name in TRANSLATED)
    assert all((ROOT / name).is_file() for name in PAIRS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_offers_the_other_language_where_there_is_one(page) -> None:
    """The link stands above the first paragraph and leads there; a page of one language offers no other."""
    offered = {text: target for text, target in links(page) if text in ("中文", "English")}
    assert offered == ({other(page)[0]: other(page)[1].name} if other(page)[1].is_file() else {})
    assert all(f"[{text}]({target})" == page.read_text().splitlines()[2] for text, target in offered.items())


@both
def test_the_commands_are_the_same(english, chinese) -> None:
    """The same commands in the same order, each with a comment in both languages or in neither."""
    assert commands(chinese) == commands(english)


@both
def test_what_is_printed_is_the_same(english, chinese) -> None:
    """Every block is there, in its section; but for comments, output and code are the same to the last character."""
    assert [blocks(part) for part in sections(chinese)] == [blocks(part) for part in sections(english)]


@both
def test_the_comments_are_translated(english, chinese) -> None:
    """A comment after a command is Chinese there, and begins in the same column."""
    there, here = comments(chinese), comments(english)
    assert [column for column, _ in there] == [column for column, _ in here]
    assert all(re.search("[一-鿿]", text) for _, text in there)


@both
def test_the_headings_are_the_same(english, chinese) -> None:
    """There are as many, of the same levels, in the same order."""
    assert HEADING.findall(chinese.read_text()) == HEADING.findall(english.read_text())


@both
def test_the_pictures_are_the_same(english, chinese) -> None:
    """The same files in the same order, and each is there."""
    pictures = PICTURE.findall(english.read_text())
    assert PICTURE.findall(chinese.read_text()) == pictures
    assert all((english.parent / picture).is_file() for picture in pictures)


@both
def test_the_tables_are_the_same(english, chinese) -> None:
    """As many tables, rows and columns, and in each row the same code and the same figures."""
    assert tables(chinese) == tables(english)


@both
def test_the_paragraphs_and_items_are_as_many(english, chinese) -> None:
    """No paragraph and no item of a list is left out of a section, or has been added to it."""
    assert [shape(part) for part in sections(chinese)] == [shape(part) for part in sections(english)]


@both
def test_no_figure_and_no_name_is_lost(english, chinese) -> None:
    """Code in the English section is code in the Chinese one, and each number of one is in the other.

    So a figure that is mended in one language alone is noticed. (Chinese may write a number where English has a word.)
    """
    for here, there in zip(sections(english), sections(chinese), strict=True):
        here, there = prose(here), prose(there)
        assert Counter(CODE.findall(there)) == Counter(CODE.findall(here))
        assert not Counter(NUMBER.findall(here)) - Counter(NUMBER.findall(there)), here.splitlines()[0]


@both
def test_the_links_are_the_same(english, chinese) -> None:
    """The same links in each section, and none to an English page that is there in Chinese."""
    for here, there in zip(sections(english), sections(chinese), strict=True):
        assert sorted(targets(there)) == sorted(targets(here))
    missed = [target for text, target in links(chinese) if text != "English" and in_chinese(chinese, target).is_file()]
    assert missed == []


def other(page: Path) -> tuple[str, Path]:
    """Return the name of the other language, and where its page would be."""
    if page.name.endswith(CHINESE):
        return "English", page.with_name(page.name.removesuffix(CHINESE) + ".md")
    return "中文", page.with_name(page.name.removesuffix(".md") + CHINESE)


def sections(page: Path) -> list[str]:
    """Return a page cut at its headings, without the link to the other language."""
    text = re.sub(r"^\[(中文|English)\]\(.*\)\n", "", page.read_text(), flags=re.MULTILINE)
    return re.split(r"^(?=#+ )", text, flags=re.MULTILINE)


def indented(text: str) -> list[str]:
    """Return the lines of a text's blocks."""
    return [line for line in text.splitlines() if line.startswith("    ")]


def commands(page: Path) -> list[tuple[str, bool]]:
    """Return what is to be typed, and whether a comment follows it."""
    lines = [line for line in indented(page.read_text()) if TYPED.match(line.strip())]
    return [(bare(line), bool(COMMENT.search(line))) for line in lines]


def bare(line: str) -> str:
    """Return a line without its comment."""
    return COMMENT.split(line)[0]


def comments(page: Path) -> list[tuple[int, str]]:
    """Return where each comment begins, and its text."""
    found = [(COMMENT.search(line), line) for line in indented(page.read_text())]
    return [(match.end(), line[match.end() :]) for match, line in found if match]


def blocks(text: str) -> list[str]:
    """Return a section's blocks, comments left out."""
    found = re.findall(r"(?:^(?: {4}.*)?\n)+", text + "\n", flags=re.MULTILINE)
    return ["\n".join(map(bare, block.strip("\n").splitlines())) for block in found if block.strip()]


def tables(page: Path) -> list[list[tuple[int, Counter[str]]]]:
    """Return of each row of each table the number of its cells, and what in it no language changes."""
    groups = groupby(page.read_text().splitlines(), lambda line: line.startswith("|"))
    return [[(row.count("|"), unchanged(row)) for row in rows] for is_table, rows in groups if is_table]


def unchanged(text: str) -> Counter[str]:
    """Return the code and the figures of a text."""
    return Counter(CODE.findall(text)) + Counter(NUMBER.findall(CODE.sub("", text)))


def prose(section: str) -> str:
    """Return a section without its blocks, and its links without their targets."""
    lines = (line for line in section.splitlines() if not line.startswith("    "))
    return LINK.sub(r"\1", PICTURE.sub("", "\n".join(lines)))


def shape(section: str) -> list[str]:
    """Return what a section is made of, in order: text, item, table, picture, or block (by its empty lines)."""
    kinds = {"    ": "block", "|": "table", "![": "picture"}
    found = []
    for paragraph in re.split(r"\n\n+", section.strip("\n")):
        items = re.findall(r"^(?:-|\d+\.) ", paragraph, flags=re.MULTILINE)
        kind = next((kind for start, kind in kinds.items() if paragraph.startswith(start)), "text")
        found += ["item"] * len(items) or [kind]
    return found


def links(page: Path) -> list[tuple[str, str]]:
    """Return a page's links, as (text, target)."""
    return LINK.findall(page.read_text())


def targets(section: str) -> list[str]:
    """Return where a section's links lead, whatever the language."""
    return [target.replace(CHINESE, ".md") for _, target in LINK.findall(section)]


def in_chinese(page: Path, target: str) -> Path:
    """Return where the Chinese page of an English target would be."""
    return page.parent / (target.partition("#")[0].removesuffix(".md") + CHINESE)
