"""Control characters in the names of classes and files never reach the terminal."""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

import pytest

from microstep.errors import format_error
from microstep.evaluation.comparison.predictions_file import read_predictions
from microstep.utils.terminal import print_above_bars
from tests.components.dataset.folders import filled, painted
from tests.components.task.test_classification_report import rows_of
from tests.faults.zygote import Zygote

CLASS = "dog\x1b[31m\nred"  #: a name that colors a terminal and breaks a line
SHOWN = r"dog\x1b[31m\nred"
WORDS = ("dataset=image_folder", "dataset.size=8", "num_workers=0", "progress=false")
SHORT = ("model=mlp", "model.hidden=[8]", "epochs=1", "batch_size=8", "threads=1", "dataset.root=data")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, zygote: Zygote) -> Path:
    """A directory with images under odd names, and two runs on them."""
    home = tmp_path_factory.mktemp("names")
    filled(home / "data", {"ant": 20, CLASS: 20})
    for name in (b"ant/caf\xe9.png", b"ant/a\nb\x1b[31m.png"):
        painted(home / "data" / os.fsdecode(name), 100)
    painted(home / "loose" / "one\x1b[31m.png", 0)
    for seed in (0, 1):
        done = zygote.call("train.py", *WORDS, *SHORT, f"seed={seed}", f"hydra.run.dir=run{seed}", cwd=home)
        assert done.returncode == 0, done.stderr
        assert "\x1b" not in done.stdout + done.stderr
        assert SHOWN in done.stdout
    return home


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("evaluate.py", ("run=run0", "split=train", "progress=false")),
        ("evaluate.py", ("run=run0", "baseline=run1")),
        ("evaluate.py", ("run=run0", "input=loose", "progress=false")),
        ("compute_stats.py", (*WORDS, "dataset.root=data")),
    ],
)
def test_no_program_shows_a_control_character(home: Path, zygote: Zygote, program: str, words: tuple[str, ...]) -> None:
    """Reports, comparisons, predictions and statistics show escapes instead, on the line of the name."""
    done = zygote.call(program, *words, cwd=home)
    assert done.returncode == 0, done.stderr
    shown = done.stdout + done.stderr
    assert [letter for letter in shown if not letter.isprintable() and letter != "\n"] == []
    assert "\nred" not in shown


def test_reports_hold_a_class_under_the_name_that_is_shown(home: Path) -> None:
    """All files of a report name a class as the terminal does, so that each row is one line."""
    report = home / "run0" / "reports" / "test"
    assert rows_of(report / "confusion_matrix.csv")[0][1:] == ["ant", SHOWN]
    assert SHOWN in (report / "classification_report.txt").read_text()
    assert SHOWN.replace("\\", "\\\\") in (report / "classification_report.json").read_text()


def test_older_reports_are_read_under_the_same_names(home: Path, tmp_path: Path) -> None:
    """The class names of a report that holds control characters are those of one that holds their escapes."""
    report = home / "run0" / "reports" / "test"
    (tmp_path / "predictions.csv").write_bytes((report / "predictions.csv").read_bytes())
    with (tmp_path / "confusion_matrix.csv").open("w", newline="") as stream:
        csv.writer(stream).writerow(["true \\ predicted", "ant", CLASS])
    assert read_predictions(tmp_path).class_names == read_predictions(report).class_names == ("ant", SHOWN)


def test_what_is_printed_has_no_control_character(capsys: pytest.CaptureFixture[str]) -> None:
    """Text keeps its lines and its letters of any script; anything that could control a terminal is escaped."""
    print_above_bars("a\x1b[31mb\r\x9b\n\x07 狐 é", sys.stdout)
    assert capsys.readouterr().out == "a\\x1b[31mb\\r\\x9b\n\\x07 狐 é\n"


def test_an_unexpected_error_has_none_either() -> None:
    """An error of another library is one printable line."""
    assert format_error(ValueError("a\x1b[31m\nb")) == r"ValueError: a\x1b[31m b"
