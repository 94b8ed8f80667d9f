"""Runs the commands of the pages about checks and tips, and compares the output with what the pages show."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.conftest import ROOT

NAMES = (
    "docs/why-the-last-backward-weighs-more.md",
    "docs/why-the-last-backward-weighs-more.zh-CN.md",
    "docs/tips.md",
    "docs/tips.zh-CN.md",
    "docs/precision.md",
    "docs/drift.md",
)
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in NAMES}
LINE = re.compile(r"^ {4}(?:\$ )?(python (?:train|evaluate|compute_stats)\.py.*)$", re.MULTILINE)
SHOWN = re.compile(r"^ {4}\$ (python train\.py check=accumulation.*)\n((?: {4}.*\n)+)", re.MULTILINE)
SHORT = {"check=drift": ["epochs=1"], "train.py precision": ["epochs=1"], "-m": ["epochs=1"]}


def commands() -> list[str]:
    """Return every command of the pages, each once."""
    found = [match.split("  #")[0].strip() for text in TEXTS.values() for match in LINE.findall(text)]
    return list(dict.fromkeys(found))


def shown(command: str) -> set[str]:
    """Return the lines of a check's output that the pages show."""
    pairs = [pair for text in TEXTS.values() for pair in SHOWN.findall(text)]
    lines = {line.strip() for typed, output in pairs if typed.strip() == command for line in output.splitlines()}
    return {comparable(line) for line in lines - {"…", ""}}


def typed(command: str, places: dict[str, Path]) -> list[str]:
    """Return a command's words, with real places, and short."""
    words = shlex.split(command)[1:]
    for word, place in places.items():
        words = [each.replace(word, str(place)) for each in words]
    return words + [add for part, adds in SHORT.items() if part in command for add in adds]


def comparable(text: str) -> str:
    """Return a text in which rounding is no difference, and neither is the width of a column."""
    return re.sub(r"\b\d(?:\.\d+)?e-1\d\b", "~0", re.sub(r" +", " ", text))


LONG = ("model=resnet18", "check=precision", "precision=auto dataset=fashion_mnist")  #: in commands that take long
COMMANDS_TO_RUN = [
    pytest.param(command, marks=[pytest.mark.long] if any(word in command for word in LONG) else [])
    for command in commands()
]


@pytest.mark.parametrize("command", COMMANDS_TO_RUN)
def test_a_command_of_the_pages_runs(zygote, command, trained, idx_files, photos, tmp_path) -> None:
    """It ends with exit code 0, an inexact loop's or model's with 1; what a page shows of its output is in it."""
    places = {"RUN_DIR": trained, "RUN_B": trained, "=DIR": Path(f"={photos}"), "FOLDER": photos / "test"}
    words = typed(command, places)
    if "fashion" in command:
        words += [f"dataset.root={idx_files}", "dataset.val_samples=20"]
    done = zygote.call(*words, cwd=tmp_path)
    inexact = done.stdout.rstrip().splitlines()[-1].startswith("Not exact: ")
    assert done.returncode == int(inexact), done.stderr
    assert inexact <= ("check=accumulation" in command)
    assert shown(command) - {comparable(line.strip()) for line in done.stdout.splitlines()} == set()


def test_the_pages_have_commands_and_output() -> None:
    """No page has lost what the test above looks for."""
    assert sum(bool(shown(command)) for command in commands()) >= 7
    assert all(LINE.search(text) for text in TEXTS.values())
