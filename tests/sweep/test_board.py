"""The progress of a sweep, read from the files of its runs."""

import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from microstep.config.compose import compose
from microstep.sweep.definition import Job, Sweep
from microstep.sweep.progress import SweepProgress
from microstep.sweep.reporter import SweepReporter
from microstep.utils.text import format_duration

METRICS = {"val": {"loss": 0.5, "accuracy": 0.9}, "test": {"loss": 0.6, "accuracy": 0.8}}
FINISHED = {"status": "finished", "monitor": "accuracy", "metrics": METRICS, "train_seconds": 2.0}


def sweep_of(directory: Path, count: int, progress: bool = False) -> Sweep:
    jobs = tuple(Job(n, f"seed-{n}", (f"seed={n}",), compose([f"seed={n}"])) for n in range(count))
    return Sweep(directory, jobs, "python train.py -m …", False, progress)


def tell(directory: Path, seed: int, **facts: Any) -> None:
    """Write a run's run.json."""
    file = directory / f"seed-{seed}" / "run.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(facts))
    os.utime(file, ns=(0, time.time_ns()))  # a clock that is too coarse would hide a quick change


def board_of(sweep: Sweep) -> tuple[SweepProgress, list[int]]:
    told: list[int] = []
    return SweepProgress(sweep, sweep.jobs, lambda: told.append(1), len(sweep.jobs)), told


def test_a_line_appears_as_a_run_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each run that ends gets a line, in the order of ending, and the summary is updated then."""
    board, told = board_of(sweep_of(tmp_path, 3))
    tell(tmp_path, 0, status="running", epoch=1, epochs=2)
    board.update()
    assert capsys.readouterr().out == "" and not told
    tell(tmp_path, 2, **FINISHED)
    board.update()
    tell(tmp_path, 0, status="failed", error="ValueError: planted")
    board.update()
    board.update()
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("[1/3] seed-2  val accuracy 0.9000  test accuracy 0.8000  trained 2.0 s  (about ")
    assert second.startswith("[2/3] seed-0  failed: ValueError: planted  (about ")
    assert len(told) == 2


def test_what_was_written_before_is_no_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run.json of an earlier command does not count as the end of a run."""
    tell(tmp_path, 0, status="interrupted", error="stopped by SIGTERM")
    board, _ = board_of(sweep_of(tmp_path, 1))
    board.update()
    assert capsys.readouterr().out == ""
    tell(tmp_path, 0, **FINISHED)
    board.update()
    assert capsys.readouterr().out.startswith("[1/1] seed-0  val accuracy")


def test_a_run_may_be_expected_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that ended because its launcher failed may run again and then gets another line."""
    sweep = sweep_of(tmp_path, 1)
    board, _ = board_of(sweep)
    tell(tmp_path, 0, status="interrupted", error="stopped by SIGTERM")
    board.update()
    board.expect_jobs(sweep.jobs)
    tell(tmp_path, 0, **FINISHED)
    board.update()
    first, second = capsys.readouterr().out.splitlines()
    assert first == "[1/1] seed-0  interrupted: stopped by SIGTERM"
    assert second.startswith("[1/1] seed-0  val accuracy")


def test_a_terminal_has_a_bar_a_run_and_one_for_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar of the sweep counts epochs as fractions of runs, and shows the time left."""

    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", screen := Screen())
    board, _ = board_of(sweep_of(tmp_path, 2, progress=True))
    tell(tmp_path, 0, **FINISHED)
    tell(tmp_path, 1, status="running", epoch=5, epochs=10)
    board.update()
    assert board.sweep_bar is not None and board.sweep_bar.n == 1.5
    board.close()
    drawn = screen.getvalue()
    assert f"sweep {tmp_path.name}  75%" in drawn and " left" in drawn
    assert "seed-1 5/10 epochs" in drawn


def test_a_summary_that_cannot_be_written_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A warning is shown once, and the sweep continues."""
    teller = SweepReporter(sweep_of(tmp_path, 1))  # there is no sweep.json
    teller.write_summary_files()
    teller.write_summary_files(final=True)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: no summary was written: ") and "sweep.json" in line


def test_a_damaged_run_json_is_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run.json that is incomplete or invalid is read again later, without any message."""
    board, _ = board_of(sweep_of(tmp_path, 2))
    for content in ('{"status": "fin', "[1]", '{"status": "running", "epoch": "x", "epochs": null}'):
        (tmp_path / "seed-0").mkdir(exist_ok=True)
        (tmp_path / "seed-0" / "run.json").write_text(content)
        board.update()
    assert capsys.readouterr().out == ""
    tell(tmp_path, 0, status="finished", metrics="none")
    board.update()
    assert capsys.readouterr().out.startswith("[1/2] seed-0  trained 0.0 s")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (12.4, "12 s"), (89.4, "89 s"), (91, "2 min"), (5400, "1 h 30 min")],
)
def test_times_are_said_as_people_say_them(seconds: float, said: str) -> None:
    """Seconds, minutes and hours have at most two significant figures."""
    assert format_duration(seconds) == said
