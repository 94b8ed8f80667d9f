"""Overhead of a sweep over its runs, and time saved by running them in parallel. Measures whole processes.

    python benchmarks/sweeps.py [runs] [epochs] [rounds]

Compares twelve runs of digits in one sweep with the sum of their training times (`train_seconds` in run.json) plus one
start-up, which is the time of a single run without training. Compares the same sweep with `hydra/launcher=local` on all
cores with the serial one. Both alternate.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from time import perf_counter

TRAIN = Path(__file__).resolve().parents[1] / "train.py"


def timed(home: Path, *words: str) -> float:
    """Return the seconds that a command took."""
    began = perf_counter()
    subprocess.run([sys.executable, TRAIN, *words], cwd=home, check=True, stdout=subprocess.DEVNULL)
    return perf_counter() - began


def trained(home: Path) -> list[float]:
    """Return the training times of all runs below a directory, from run.json."""
    return [json.loads(file.read_text())["train_seconds"] for file in home.rglob("run.json")]


def single(epochs: str) -> tuple[float, float]:
    """Return the time of one run by itself, and its training time."""
    with tempfile.TemporaryDirectory() as home:
        seconds = timed(Path(home), epochs)
        return seconds, trained(Path(home))[0]


def sweep(*words: str) -> tuple[float, float]:
    """Return the time of a sweep, and the sum of its training times."""
    with tempfile.TemporaryDirectory() as home:
        seconds = timed(Path(home), "-m", *words)
        return seconds, sum(trained(Path(home)))


def main(runs: int = 12, epochs: int = 20, rounds: int = 3) -> None:
    """Print a table of medians."""
    words = (f"seed={','.join(map(str, range(runs)))}", f"epochs={epochs}")
    alone = [single(words[1]) for _ in range(rounds)]
    pairs = [(sweep(*words), sweep(*words, "hydra/launcher=local")) for _ in range(rounds)]
    start = statistics.median(seconds - training for seconds, training in alone)
    figures = {
        "a run by itself": f"{statistics.median(seconds for seconds, _ in alone):.1f} s",
        "of which training": f"{statistics.median(training for _, training in alone):.1f} s",
        "the rest: start-up, and the end's reports": f"{start:.1f} s",
        "the sweep, in turn": f"{statistics.median(one[0] for one, _ in pairs):.1f} s",
        "its runs' training, in all": f"{statistics.median(one[1] for one, _ in pairs):.1f} s",
        "(sweep − the rest of one run) ÷ training": median_of((one[0] - start) / one[1] for one, _ in pairs),
        f"{runs} commands one after the other": f"{runs * statistics.median(s for s, _ in alone):.1f} s (reckoned)",
        "the sweep side by side": f"{statistics.median(other[0] for _, other in pairs):.1f} s",
        "in turn ÷ side by side": median_of(one[0] / other[0] for one, other in pairs),
    }
    print(f"{runs} runs of {epochs} epochs, {os.cpu_count()} cores, medians of {rounds}\n\n| | |\n|---|---|")
    print("\n".join(f"| {name} | {value} |" for name, value in figures.items()))


def median_of(ratios: Iterable[float]) -> str:
    """Return the median of some ratios, and their range."""
    found = sorted(ratios)
    return f"{statistics.median(found):.2f} ({found[0]:.2f} to {found[-1]:.2f})"


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
