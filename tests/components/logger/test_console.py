"""Tests of the terminal output of a run."""

from __future__ import annotations

import logging
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from microstep.components.logger.console import Console, format_metrics, format_report
from microstep.types.data import Report
from microstep.types.events import EpochReport, Results, SavingCost, SplitResult
from microstep.utils.tables import format_fields
from microstep.utils.terminal import install_notice_handler, print_above_bars
from tests.conftest import ROOT

VAL = {"loss": 0.5, "accuracy": 0.875, "f1_macro": 0.75, "f1_weighted": 0.8}


def epoch(number: int = 3, best: bool = True) -> EpochReport:
    return EpochReport(
        epoch=number,
        epochs=20,
        optimizer_steps=69,
        samples_seen=4311,
        skipped_steps=0,
        train={"loss": 1.25, "accuracy": 0.5},
        val=VAL,
        lr=0.01,
        samples_per_second=12345.6,
        seconds=2.34,
        best=best,
    )


def results(run_dir: Path, skipped: int = 0) -> Results:
    splits = {name: SplitResult(VAL, Report(f"the {name} report\n")) for name in ("val", "test")}
    return Results(run_dir, 3, 1069, skipped, 4311, 12.34, 2**30, SavingCost(), splits)


def test_the_start_says_what_is_about_to_happen(trained):
    """The start-up summary has a row each for data, model, precision, device, batch, steps and directory."""
    lines = (trained.parent / "stdout.txt").read_text().splitlines()
    start = lines[: next(i for i, line in enumerate(lines) if line.startswith("epoch"))]
    rows = dict(re.split(r"  +", line.strip(), maxsplit=1) for line in start)
    assert list(rows) == ["data", "model", "precision", "device", "batch", "steps", "run directory"]
    assert rows["data"].startswith("digits: 1,437 train / 180 val / 180 test; 1 × 8 × 8")
    assert rows["batch"] == "64 × accum 1 → effective 64"
    assert rows["steps"] == "23 an epoch, 69 in 3 epochs"
    assert rows["run directory"] == "run"


def test_the_end_shows_the_test_report_and_where_it_lies(trained):
    """The end shows scikit-learn's report, the metrics of both splits, the best epoch and the directory."""
    shown = (trained.parent / "stdout.txt").read_text()
    assert (trained / "reports" / "test" / "classification_report.txt").read_text().rstrip() in shown
    for name in ("test", "val"):
        assert re.search(rf"^  {name} +loss \d\.\d{{4}}  accuracy \d\.\d{{4}}  f1_macro ", shown, re.MULTILINE)
    assert "epoch 3, chosen by validation" in shown


def test_an_epoch_is_one_line(capsys):
    """An epoch's line has aligned numbers, both splits, speed, seconds, and a mark if it is the best so far."""
    console = Console(bars_shown=False)
    console.epoch(epoch())
    console.epoch(epoch(12, best=False))
    first, second = capsys.readouterr().out.splitlines()
    expected = "train loss 1.2500 accuracy 0.5000  val loss 0.5000 accuracy 0.8750  12,346 samples/s  2.3 s"
    assert first == f"epoch  3/20  {expected}  best"
    assert second == f"epoch 12/20  {expected}"


def test_where_bars_are_shown_the_line_goes_to_the_log_alone(capsys, caplog):
    """With progress bars, an epoch's line is only logged."""
    with caplog.at_level(logging.INFO, "microstep"):
        Console(bars_shown=True).epoch(epoch())
    assert capsys.readouterr().out == ""
    assert [record.getMessage()[:12] for record in caplog.records] == ["epoch  3/20 "]


def test_the_command_that_is_offered_can_be_pasted(tmp_path, capsys, monkeypatch):
    """A run directory with spaces and quotes is quoted for the shell, relative to the working directory."""
    monkeypatch.chdir(tmp_path)
    Console(bars_shown=False).finish(results(tmp_path / "my run's"))
    offered = next(line for line in capsys.readouterr().out.splitlines() if " evaluate " in line)
    words = shlex.split(offered.split("  ")[-1])
    assert words == ["python", "-m", "microstep", "evaluate", "run=my run's", "split=test"]


def test_the_log_directory_that_is_offered_holds_the_run(trained):
    """`tensorboard --logdir …`, called in the working directory of the run, finds the run."""
    shown = (trained.parent / "stdout.txt").read_text()
    words = shlex.split(next(line for line in shown.splitlines() if "tensorboard --logdir" in line))
    assert trained.is_relative_to((trained.parent / words[-1]).resolve())


def test_skipped_steps_are_mentioned_where_there_were_any(tmp_path, capsys):
    """Skipped steps are mentioned only if there are any."""
    for skipped in (0, 2):
        Console(bars_shown=False).finish(results(tmp_path, skipped))
    trained = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  trained")]
    assert [line.split("  ")[-1] for line in trained] == [
        "1,069 optimizer steps in 12.3 s",
        "1,069 optimizer steps in 12.3 s, 2 skipped for overflow",
    ]


def test_tables_are_aligned():
    """Names and values are in two aligned columns."""
    assert format_fields({"a": "1", "long name": "2"}) == "  a          1\n  long name  2"
    assert format_metrics({"loss": 0.5, "accuracy": 1.0}) == "loss 0.5000  accuracy 1.0000"
    assert format_report("report\n\n", {"a": "1"}) == "\nreport\n\n  a  1"


def test_warnings_are_one_line_on_stderr_and_remarks_one_on_stdout(capsys):
    """A notice is shown once even if the handler is installed repeatedly."""
    for _ in range(3):
        install_notice_handler()
    notices = logging.getLogger("microstep.notice")
    notices.warning("class %s is empty", "cat")
    notices.info("fp16 was chosen")
    shown = capsys.readouterr()
    assert shown.err == "warning: class cat is empty\n"
    assert shown.out == "fp16 was chosen\n"


def test_a_reader_that_goes_away_does_not_stop_a_run(tmp_path):
    """`python train.py | head -1` trains to the end without an error and exits with 0."""
    command = [sys.executable, str(ROOT / "train.py"), "epochs=2", "model=mlp", "hydra.run.dir=run"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, text=True, **pipes) as process:
        assert process.stdout
        assert process.stderr
        assert "data" in process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (0, "")
    assert '"status": "finished"' in (tmp_path / "run" / "run.json").read_text()


def test_text_is_written_above_the_bars_at_once(capsys):
    """Each line is flushed at once."""
    print_above_bars("a line")
    assert capsys.readouterr().out == "a line\n"
