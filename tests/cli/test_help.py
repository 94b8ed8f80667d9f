"""The page that `--help` prints is our own, and complete."""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import Field, fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from microstep.cli.help import HYDRA, MARGIN, WIDTH, comment, describe_field, help_text
from microstep.config.ranges import RANGES
from microstep.config.schema import SCHEMAS, SECTIONS
from microstep.config.search_path import CONF
from tests.conftest import ROOT, call

PROGRAMS = sorted(SCHEMAS)
INNER = ("hydra/job_logging", "hydra/sweeper")  #: groups that nobody chooses from
FILES = [file.relative_to(CONF).with_suffix("") for file in sorted(CONF.glob("*/**/*.yaml"))]
OPTIONS = [(str(file.parent), file.name) for file in FILES if str(file.parent) not in INNER]


def keys(name: str) -> dict[str, Field[Any]]:
    """Return every key of a program by its dotted name, those of nodes included."""
    found = {field.name: field for field in fields(SCHEMAS[name])}
    nodes = {name: field.default_factory for name, field in found.items() if is_dataclass(field.default_factory)}
    return found | {f"{node}.{field.name}": field for node, schema in nodes.items() for field in fields(schema)}


def entry(text: str, name: str, indent: int = 2) -> str:
    """Return what the page says of a key, a group or an option, in one line."""
    block = rf"^ {{{indent}}}{re.escape(name)}(?: +(.*))?\n((?: {{{MARGIN}}}.*\n)*)"
    found = re.findall(block, text + "\n", flags=re.MULTILINE)
    assert len(found) == 1, text
    return " ".join(" ".join(found[0]).split())


def group(text: str, name: str) -> str:
    """Return a group's part of the page: its entry and those of its options."""
    return re.findall(rf"^  {name} .*\n(?:    .*\n)*", text, flags=re.MULTILINE)[0]


@pytest.mark.parametrize(("name", "key"), [(name, key) for name in PROGRAMS for key in keys(name)])
def test_every_key_is_explained(name: str, key: str) -> None:
    """Each key of each program has an entry: a description, then its type, its range and its default."""
    field, about = keys(name)[key], entry(help_text("Introduction.", CONF, name), key)
    assert len(field.metadata["help"].split()) > 1 or (CONF / key).is_dir()
    assert about.startswith(field.metadata["help"])
    if not (CONF / key).is_dir():
        assert describe_field(field, key.removesuffix(field.name)) in about
        assert str(field.metadata.get("range", RANGES.get(key, ""))) in about


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_entry_is_in_a_section_of_the_page(name: str) -> None:
    """No key names a section that the page doesn't have, so none is left out; empty sections are."""
    entries = [field.metadata["section"] for field in keys(name).values()] + [e.section for e in HYDRA.get(name, ())]
    assert set(entries) <= set(SECTIONS)
    headings = re.findall(r"^(\S.*):$", help_text("", CONF, name), flags=re.MULTILINE)
    assert headings == [section for section in SECTIONS if section in entries]


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_every_option_is_explained(name: str, option: str) -> None:
    """Each yaml that can be chosen is offered under its group, with the comment on its first line."""
    about = comment(CONF / name / f"{option}.yaml")
    assert about
    assert entry(group(help_text("", CONF, "train"), name), option, indent=4) == about


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_page_fits_a_terminal(name: str) -> None:
    """No line is wider than 80 columns, and no description is longer than three lines without its range."""
    assert max(map(len, help_text("", CONF, name).splitlines())) <= WIDTH == 80
    assert all(len(field.metadata["help"]) <= 3 * (WIDTH - MARGIN) for field in keys(name).values())


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("accum", "int at least 1, default 1"),
        ("effective_batch_size", "int or null at least 1, default null"),
        ("max_grad_norm", "float or null above 0, default null"),
        ("device", "str (auto, cpu, cuda, mps), default auto"),
        ("deterministic", "bool, default true"),
        ("compile", "bool, default false"),
        ("profile", "bool | str, default false"),
        ("checkpoint.every_minutes", "float or null above 0, default null"),
        ("model", "default small_cnn"),
        ("experiment", "default null"),
        ("trust", "list[str]"),
    ],
)
def test_a_key_is_described_as_yaml_spells_it(key: str, said: str) -> None:
    """Types, ranges and defaults read as they are typed, not as Python prints them."""
    assert entry(help_text("", CONF, "train"), key).endswith(f" [{said}]")


def test_a_node_of_keys_is_no_choice_of_words() -> None:
    """`checkpoint` is a node of train.py and a word of evaluate.py: the words are offered there alone."""
    assert "[" not in entry(help_text("", CONF, "train"), "checkpoint")
    assert "(best, last, model.safetensors), default best" in entry(help_text("", CONF, "evaluate"), "checkpoint")


def test_a_required_key_is_said_to_be_required() -> None:
    """`evaluate.py` says what it can't do without."""
    assert "run directory, needed without weights=" in entry(help_text("", CONF, "evaluate"), "run")


def test_a_new_option_appears_by_itself(tmp_path: Path) -> None:
    """A yaml put into a group is on the page without another line of code; without a comment, it is its name."""
    (tmp_path / "model").mkdir()
    shutil.copy(CONF / "train.yaml", tmp_path)
    (tmp_path / "model" / "mine.yaml").write_text("_target_: mine.Net  # one of mine\n")
    (tmp_path / "model" / "other.yaml").write_text("_target_: mine.Other\n")
    assert group(help_text("", tmp_path, "train"), "model").splitlines()[1:] == [
        "    mine                one of mine",
        "    other",
    ]


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_is_our_own_page(name: str, tmp_path: Path) -> None:
    """`--help` begins with what to type, ends well, and leaves nothing behind; Hydra's own page is not shown."""
    done = call(f"{name}.py", "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{sys.executable} {ROOT / name}.py" in done.stdout
    assert help_text("", CONF, name).strip() in done.stdout
    assert not list(tmp_path.iterdir())
