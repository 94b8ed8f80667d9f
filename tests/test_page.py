"""The page that `--help` prints is our own, and complete."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from microstep.composer import CONF
from microstep.config import SCHEMAS
from microstep.page import described, page
from tests.conftest import call

PROGRAMS = sorted(SCHEMAS)
OPTIONS = [(file.parent.name, file.stem) for file in sorted(CONF.glob("*/*.yaml"))]


def line_of(text: str, name: str) -> str:
    """Return the page's line about a key or a group."""
    lines = [line for line in text.splitlines() if line.startswith(f"  {name} ")]
    assert len(lines) == 1, text
    return lines[0]


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_key_is_on_the_page(name: str) -> None:
    """Each key of each program has one line, with its type, its range and its default."""
    text = page("Introduction.", CONF, name)
    for field in fields(SCHEMAS[name]):
        line = line_of(text, field.name)
        if not (CONF / field.name).is_dir():
            assert described(field) in line
            assert str(field.metadata.get("range", "")) in line


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_is_on_the_page(group: str, option: str) -> None:
    """Each yaml that can be chosen is offered, under its group."""
    assert option in line_of(page("", CONF, "train"), group).replace(",", "").split()


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("accum", "int at least 1, default 1"),
        ("effective_batch_size", "int or null at least 1, default null"),
        ("max_grad_norm", "float or null above 0, default null"),
        ("device", "str (auto, cpu, cuda, mps), default auto"),
        ("deterministic", "bool, default true"),
    ],
)
def test_a_key_is_described_as_yaml_spells_it(key: str, said: str) -> None:
    """Types, ranges and defaults read as they are typed, not as Python prints them."""
    assert line_of(page("", CONF, "train"), key).split(maxsplit=1)[1] == said


def test_a_required_key_is_said_to_be_required() -> None:
    """`evaluate.py` can't do without a run, and says so."""
    assert line_of(page("", CONF, "evaluate"), "run").endswith("str, required")


def test_a_new_option_appears_by_itself(tmp_path: Path) -> None:
    """A yaml put into a group is on the page without another line of code."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("_target_: mine.Net\n")
    assert line_of(page("", tmp_path, "train"), "model").split() == ["model", "mine"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_is_our_own_page(name: str, tmp_path: Path) -> None:
    """`--help` begins with what to type, ends well, and leaves nothing behind; Hydra's own page is not shown."""
    done = call(f"{name}.py", "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"python {name}.py" in done.stdout
    assert page("", CONF, name).strip() in done.stdout
    assert not list(tmp_path.iterdir())
