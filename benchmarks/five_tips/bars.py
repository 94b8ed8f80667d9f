"""Tip 2, progress bars: their cost per step, their output in a log file, and the error of the metric they show."""

from __future__ import annotations

import io
import os
import statistics
import subprocess
import sys
import tempfile
import termios
import threading
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm import tqdm

from microstep.components.task import Classification
from microstep.utils.progress_bar import ProgressBars

from .digits import CPU, SAMPLES, digits, in_turn, micro_batches, network, ratio, sgd
from .drawing import EXACT, MENDED, OURS, USUAL, bars, picture

STEPS, BATCH, EPOCHS, ROUNDS = 860, 64, 5, 25
ROOT = Path(__file__).resolve().parents[2]
LOSS = torch.tensor(0.5418)
TARGETS = torch.zeros(BATCH, dtype=torch.int64)


@contextmanager
def terminal():
    """Make stderr a terminal that is read."""
    reader, writer = os.openpty()
    termios.tcsetwinsize(writer, (24, 80))  # without a width, tqdm draws nothing
    shown, stream = sys.stderr, os.fdopen(writer, "w")
    thread = threading.Thread(target=drained, args=(reader,), daemon=True)
    thread.start()
    sys.stderr = stream
    try:
        yield
    finally:
        sys.stderr = shown
        stream.close()


def drained(reader: int) -> None:
    try:
        while os.read(reader, 65536):
            pass
    except OSError:
        pass  # the other end is closed


def usual(steps, total: int) -> None:
    """The snippet's bar, around nothing."""
    bar = tqdm(enumerate(steps), total=total, file=sys.stderr)
    for _, step in bar:
        loss = step()
        bar.set_description(f"loss {loss.item():.4f}")


def patient(steps, total: int) -> None:
    """The same number, shown when tqdm draws anyway."""
    bar = tqdm(enumerate(steps), total=total, file=sys.stderr)
    for _, step in bar:
        bar.set_postfix_str(f"loss {step().item():.4f}", refresh=False)


def none(steps, total: int) -> None:
    for step in steps:
        step()


def own(steps, total: int) -> None:
    """microstep's bar: it counts samples, and reads the running metrics when it is drawn."""
    metrics = Classification([str(n) for n in range(10)], torch.arange(10), CPU).metrics()
    metrics.update(torch.zeros(BATCH, 10), TARGETS, LOSS)
    for step in ProgressBars(True).samples(
        steps, "training", total * BATCH, lambda step: BATCH, metrics.running_values
    ):
        step()


BARS: dict[str, Callable] = {"no bar": none, "set_description": usual, "refresh=False": patient, "microstep": own}


def epoch_of_digits() -> Callable[[], list[Callable]]:
    """Return a function that makes the training steps of an epoch."""
    net, (inputs, targets) = network(), digits()
    optimizer = sgd(net)

    def step(rows):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(inputs[rows]), targets[rows])
        loss.backward()
        optimizer.step()
        return loss.detach()

    return lambda: [lambda rows=rows: step(rows) for rows in micro_batches(1, BATCH)]


def costs() -> tuple[dict[str, float], dict[str, float]]:
    """Return microseconds per step of each bar, and the ratio of an epoch of digits to one without a bar."""
    epoch = epoch_of_digits()
    with terminal():
        empty = in_turn(
            {name: lambda bar=bar: bar([lambda: LOSS] * STEPS, STEPS) for name, bar in BARS.items()}, ROUNDS
        )
        real = in_turn({name: lambda bar=bar: bar(epoch(), len(epoch())) for name, bar in BARS.items()}, ROUNDS)
    return (
        {name: 1e6 * statistics.median(times) / STEPS for name, times in empty.items()},
        {name: ratio(times, real["no bar"]) for name, times in real.items()},
    )


def written(bar: Callable, steps: list[Callable]) -> str:
    """Return the text that an epoch's bar writes into a log file."""
    shown, sys.stderr = sys.stderr, io.StringIO()
    try:
        bar(steps, len(steps))
        return sys.stderr.getvalue()
    finally:
        sys.stderr = shown


def lines_of_a_pipe(epochs: int = 3) -> list[str]:
    """Return the lines that `python train.py` prints of its epochs, when it is piped."""
    command = [sys.executable, str(ROOT / "train.py"), f"epochs={epochs}", "threads=1", "hydra.run.dir=run"]
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(command, cwd=home, capture_output=True, text=True, check=True)
    assert "\r" not in done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith("epoch")]


def losses(epochs: int = EPOCHS) -> list[list[tuple[int, float]]]:
    """Return size and loss of every batch, by epoch."""
    net, (inputs, targets) = network(), digits()
    optimizer, found = sgd(net), []
    for epoch in range(epochs):
        seen = []
        for rows in micro_batches(epoch, BATCH):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(inputs[rows]), targets[rows])
            loss.backward()
            optimizer.step()
            seen.append((len(rows), loss.item()))
        found.append(seen)
    return found


def running(seen: list[tuple[int, float]]) -> list[float]:
    """Return the mean over all samples so far, after each batch."""
    totals = [sum(n * loss for n, loss in seen[: k + 1]) for k in range(len(seen))]
    counts = [sum(n for n, _ in seen[: k + 1]) for k in range(len(seen))]
    return [total / count for total, count in zip(totals, counts, strict=True)]


def draw(cost: dict[str, float], epochs: list[list[tuple[int, float]]], log: str, lines: list[str]) -> None:
    with picture("bars", 4.1, (1, 1.2)) as (left, right):
        bars(left, cost, "{:.2g}", [EXACT, USUAL, MENDED, OURS])
        left.set(title="Cost of a bar, µs a step (log scale)", xscale="log", xlim=(0.01, 500))
        for number, seen in enumerate(epochs):
            steps = range(23 * number + 1, 23 * number + 24)
            right.plot(steps, [loss for _, loss in seen], ".-", color=USUAL, lw=0.8, ms=4)
            right.plot(steps, running(seen), color=OURS, lw=2)
        right.legend(["the last batch's (the snippet)", "mean of the epoch so far"])
        right.set(title="The loss that the bar shows", xlabel="step", yscale="log")
        left.figure.supxlabel(
            in_a_log(log, lines), ha="left", x=0.01, fontsize=8.6, family="monospace", linespacing=1.5
        )


def in_a_log(log: str, lines: list[str]) -> str:
    """Return the text of two log files, side by side."""
    parts = [part.strip() for part in log.split("\r") if part.strip()]
    usual = [f"the snippet's log: one line, redrawn {log.count(chr(13))} times"]
    usual += [f"\\r{part.split(' [')[0]} [… it/s]" for part in (parts[1], parts[2], parts[-1])]
    own = ["log of python train.py: a line an epoch", *(f"{line.split('  val')[0]} …" for line in lines)]
    return "\n".join(f"{one:56}{other}" for one, other in zip(usual, own, strict=True))


def report(epochs: list[list[tuple[int, float]]]) -> None:
    """Print the distance of the number left on the screen from the epoch's mean."""
    for number, seen in enumerate(epochs, 1):
        mean, (size, last) = running(seen)[-1], seen[-1]
        assert sum(n for n, _ in seen) == SAMPLES
        print(
            f"  epoch {number}: mean {mean:.4f}, the last batch's ({size} samples) {last:.4f}: {last / mean - 1:+.0%}"
        )


def main() -> None:
    print("2 progress bars")
    cost, slower = costs()
    for name, microseconds in cost.items():
        print(f"  {name:16} {microseconds:8.2f} µs a step   an epoch of digits takes {slower[name]:.3f} ×")
    logs = {name: written(bar, [lambda: LOSS] * STEPS) for name, bar in BARS.items()}
    for name, text in logs.items():
        print(f"  {name:16} in a log file, {STEPS} steps: {len(text):7,} characters, {text.count(chr(13)):4} redraws")
    lines, epochs = lines_of_a_pipe(), losses()
    report(epochs)
    print(*lines, sep="\n")
    draw(cost, epochs, written(usual, epoch_of_digits()()), lines)
