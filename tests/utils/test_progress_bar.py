"""Bars are for terminals: with loss and accuracy there, and not a trace of them in a pipe."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from time import sleep

import pytest

from microstep.utils.progress_bar import ProgressBars
from tests.conftest import ROOT, call

SLOW_ENOUGH = ("epochs=1", "batch_size=2", "model.width=192", "dataset.val_samples=1500", "dataset.test_samples=100")


class Terminal:
    """A real pseudo-terminal, 24 × 120."""

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        termios.tcsetwinsize(self.slave, (24, 120))

    def shown(self) -> str:
        """Close our end of it and return all that it was sent."""
        os.close(self.slave)
        parts: list[bytes] = []
        try:
            while part := os.read(self.master, 4096):
                parts.append(part)
        except OSError:  # how Linux says that the other end is closed
            pass
        os.close(self.master)
        return b"".join(parts).decode()


@contextmanager
def terminal_as_stderr(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Let this process's stderr be a terminal; afterwards the list holds what it was sent."""
    terminal, shown = Terminal(), []
    with os.fdopen(os.dup(terminal.slave), "w") as stream, monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", stream)
        yield shown
    shown.append(terminal.shown())


@pytest.fixture(scope="module")
def on_a_terminal(tmp_path_factory) -> tuple[int, str, str]:
    """`python train.py` with stderr on a terminal: exit code, what the terminal was sent, stdout."""
    home, terminal = tmp_path_factory.mktemp("terminal"), Terminal()
    command = [sys.executable, str(ROOT / "train.py"), *SLOW_ENOUGH]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TERM": "xterm"}
    with (home / "stdout.txt").open("w") as stdout:
        process = subprocess.Popen(command, cwd=home, env=environment, stdout=stdout, stderr=terminal.slave)
    shown = terminal.shown()
    return process.wait(timeout=60), shown, (home / "stdout.txt").read_text()


@pytest.mark.parametrize("label", ["train 1/1", "val"])
def test_training_and_validation_have_a_bar_with_loss_and_accuracy(on_a_terminal, label):
    """On a terminal each shows how far it is, how fast, and the running loss and accuracy."""
    code, shown, _ = on_a_terminal
    assert code == 0, shown
    bar = rf"{label}: +\d+%\|[^|\r\n]*\| [\d.k]+/[\d.k]+ \[[^\]]*samples/s, loss=\d+\.\d{{4}}, accuracy=[01]\.\d{{4}}\]"
    assert re.search(bar, shown), shown


def test_the_epochs_have_a_bar_with_the_validation_metrics(on_a_terminal):
    """The outer bar counts epochs and shows what the last validation came to."""
    assert re.search(r"epochs: 100%\|[^\r\n]*val_loss=\d+\.\d{4}, val_accuracy=[01]\.\d{4}", on_a_terminal[1])


def test_loss_and_accuracy_move_with_the_bar(on_a_terminal):
    """They are the running ones, read as the bar is drawn: not one number at the end."""
    seen = re.findall(r"train 1/1: [^\r\n]*loss=(\d+\.\d{4}), accuracy", on_a_terminal[1])
    assert len(set(seen)) >= 3


def test_bars_go_to_stderr_alone(on_a_terminal):
    """stdout holds the summary, the table and the report, as plain lines: it can be piped while bars are shown."""
    stdout = on_a_terminal[2]
    assert "\r" not in stdout
    assert "%|" not in stdout
    assert "weighted avg" in stdout


@pytest.fixture(scope="module")
def in_a_pipe(tmp_path_factory) -> subprocess.CompletedProcess[str]:
    """`python train.py` with stdout and stderr in pipes, of epochs that a terminal would show a bar for."""
    done = call("train.py", "epochs=2", "batch_size=1", "model=mlp", cwd=tmp_path_factory.mktemp("pipe"))
    assert done.returncode == 0, done.stderr
    return done


def test_a_pipe_gets_nothing_but_plain_lines(in_a_pipe):
    """No carriage return, no escape sequence, no bar, and nothing at all on stderr."""
    assert in_a_pipe.stderr == ""
    assert not {"\r", "\x1b", "\b"} & set(in_a_pipe.stdout)
    assert "%|" not in in_a_pipe.stdout


def test_a_pipe_gets_a_line_an_epoch(in_a_pipe):
    """One each, in order, with loss and accuracy of training and validation."""
    lines = [line for line in in_a_pipe.stdout.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 2
    metrics = r"loss \d+\.\d{4} accuracy [01]\.\d{4}"
    for number, line in enumerate(lines, 1):
        assert re.match(rf"epoch {number}/2  train {metrics}  val {metrics}  [\d,]+ samples/s", line)


def counted(bars: ProgressBars, parts: int, seconds: float) -> tuple[list[int], int]:
    """Go through a bar; return what came out and how often the metrics were read."""
    reads = []

    def running() -> dict[str, float]:
        reads.append(1)
        return {"loss": 1.5, "accuracy": 0.25}

    out = []
    for part in bars.samples(range(parts), "val", parts, lambda _: 1, running):
        sleep(seconds)
        out.append(part)
    return out, len(reads)


def test_in_a_pipe_the_metrics_are_never_read(capsys):
    """Reading them waits for the device; what is not shown is not waited for. Every part still comes through."""
    assert counted(ProgressBars(enabled=True), 20, 0) == (list(range(20)), 0)
    assert capsys.readouterr().err == ""


def test_on_a_terminal_the_metrics_are_read_only_when_the_bar_is_drawn(monkeypatch):
    """A few times a second, not for each of many batches; the parts come through as they are."""
    with terminal_as_stderr(monkeypatch) as shown:
        out, reads = counted(ProgressBars(enabled=True), 1000, 0.001)
    assert out == list(range(1000))
    assert 1 <= reads <= 100
    assert "loss=1.5000, accuracy=0.2500" in shown[0]


def test_what_is_over_at_once_gets_no_bar(monkeypatch):
    """A split that takes no time doesn't flash a bar."""
    with terminal_as_stderr(monkeypatch) as shown:
        assert counted(ProgressBars(enabled=True), 10, 0)[0] == list(range(10))
    assert "val" not in shown[0]


def test_bars_can_be_switched_off(monkeypatch):
    """With progress=false even a terminal is sent nothing, and epochs and parts still come through."""
    with terminal_as_stderr(monkeypatch) as shown:
        bars = ProgressBars(enabled=False)
        assert list(bars.epochs(range(1, 4), 0, 3)) == [1, 2, 3]
        assert counted(bars, 3, 0) == ([0, 1, 2], 0)
    assert shown == [""]
    assert not bars.is_shown


def test_a_resumed_runs_bar_counts_all_epochs(monkeypatch):
    """Of five epochs of which two were done before, three are yielded, and the bar begins at two of five."""
    with terminal_as_stderr(monkeypatch) as shown:
        assert list(ProgressBars(enabled=True).epochs(range(3, 6), 2, 5)) == [3, 4, 5]
    assert "| 2/5 [" in shown[0]
    assert "| 5/5 [" in shown[0]
    assert "0/5" not in shown[0]


def test_a_resumed_epochs_bar_begins_where_it_was(monkeypatch):
    """Of 100 samples of which 60 were seen before, the bar counts from 60 to 100."""
    with terminal_as_stderr(monkeypatch) as shown:
        for _ in ProgressBars(enabled=True).samples([20, 20], "train 2/3", 100, int, dict, done=60):
            sleep(0.5)
    counts = [float(count) for count in re.findall(r"\| ([\d.]+)/100 ", shown[0])]
    assert counts
    assert min(counts) >= 60
    assert max(counts) == 100
