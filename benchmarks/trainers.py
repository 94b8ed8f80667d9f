"""microstep against a loop written by hand, the tutorials' loop, Lightning, Accelerate and skorch.

    python benchmarks/trainers.py [--only digits fashion resnet18] [--rounds 3] [--contestants by_hand microstep …]

All contestants train the same model on the same samples, with the same optimizer and learning rate schedule. Each run
is a process of its own, on a pseudo-terminal so that bars are drawn. The contestants alternate. Prints tables of
medians (and ranges), and medians of the ratios of pairs. Other libraries: `pip install -r benchmarks/requirements.txt`.
"""

from __future__ import annotations

import argparse
import csv
import fcntl
import json
import os
import platform
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.contestants import BASELINE, CONTESTANTS, WORKLOADS, Contestant  # noqa: E402
from benchmarks.contestants.fashion import shorten  # noqa: E402

VERSIONS = ("microstep", "torch", "torchvision", "lightning", "accelerate", "skorch")
COLUMNS = (
    *("", "whole process, s", "÷ by hand", "first epoch, s", "a later epoch, s", "÷ by hand"),
    *("peak memory, MB", "validation accuracy"),
)


@dataclass(frozen=True)
class Measurement:
    """Figures of one process: seconds, and bytes."""

    whole: float
    first: float
    later: float  #: mean of the epochs after the first
    peak_memory: int
    accuracy: float  #: on the validation split after the last epoch


def main() -> None:
    """Measure and print."""
    arguments = parse_arguments()
    chosen = installed(arguments.contestants)
    print(describe_machine(), flush=True)
    with tempfile.TemporaryDirectory() as home:
        for name in arguments.only:
            overrides = WORKLOADS[name].split()
            if name == "fashion" and not arguments.fashion_root.is_dir():
                print(f"fashion is skipped: there is no directory {arguments.fashion_root} (--fashion-root)")
                continue
            if name == "fashion":
                overrides.append(f"dataset.root={shorten(arguments.fashion_root, Path(home, 'fashion-mnist'))}")
            print(f"\n### {name}\n\n`{WORKLOADS[name]}`, {arguments.rounds} rounds:\n", flush=True)
            print(format_table(measure(overrides, chosen, arguments.rounds, Path(home, name))), flush=True)


def parse_arguments() -> argparse.Namespace:
    options = yaml.safe_load((ROOT / "conf/dataset/fashion_mnist.yaml").read_text())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=WORKLOADS, default=[*WORKLOADS])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=[*CONTESTANTS])
    parser.add_argument("--fashion-root", type=Path, default=options["root"], help="directory of the IDX files")
    return parser.parse_args()


def installed(names: Iterable[str]) -> dict[str, Contestant]:
    """Return the contestants whose packages are installed, and print the names of the others."""
    chosen = {name: CONTESTANTS[name] for name in names}
    for name, contestant in [*chosen.items()]:
        if missing := [package for package in contestant.requires if not find_spec(package)]:
            print(f"{name} is skipped: {', '.join(missing)} not installed (benchmarks/requirements.txt)")
            del chosen[name]
    return chosen


def measure(
    overrides: Sequence[str], chosen: dict[str, Contestant], rounds: int, home: Path
) -> dict[str, list[Measurement]]:
    """Return the measurements of each contestant, one per round."""
    home.mkdir()
    workload = home / "workload.pt"
    run([sys.executable, "-m", "benchmarks.contestants.prepare", str(workload), *overrides], home)
    results: dict[str, list[Measurement]] = {name: [] for name in chosen}
    for seed in range(rounds):
        for name, contestant in chosen.items():
            directory = home / f"{name}-{seed}"
            directory.mkdir()
            measured = measure_microstep if contestant.module is None else measure_other
            results[name].append(measured(name, workload, overrides, seed, directory))
            print(f"round {seed + 1}/{rounds}:", *format_row(name, results[name][-1:], None), file=sys.stderr)
    return results


def measure_microstep(name: str, workload: Path, overrides: Sequence[str], seed: int, directory: Path) -> Measurement:
    options = [f"{key}={value}" for key, value in CONTESTANTS[name].options.items()]
    run_dir = directory / "run"
    command = [sys.executable, str(ROOT / "train.py"), *overrides, *options, f"seed={seed}", f"hydra.run.dir={run_dir}"]
    whole, peak_memory = run(command, directory)
    rows = [*csv.DictReader((run_dir / "metrics.csv").open())]
    first, total = float(rows[0]["seconds"]), json.loads((run_dir / "run.json").read_text())["train_seconds"]
    return Measurement(whole, first, (total - first) / (len(rows) - 1), peak_memory, float(rows[-1]["val_accuracy"]))


def measure_other(name: str, workload: Path, overrides: Sequence[str], seed: int, directory: Path) -> Measurement:
    file = directory / "result.json"
    command = [sys.executable, "-m", "benchmarks.contestants", name, str(workload), str(seed), str(file)]
    whole, peak_memory = run(command, directory)
    return Measurement(whole, peak_memory=peak_memory, **json.loads(file.read_text()))


def run(command: Sequence[str], directory: Path) -> tuple[float, int]:
    """Run a command on a pseudo-terminal. Return its seconds and its peak resident memory in bytes."""
    terminal, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("4H", 40, 120, 0, 0))
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    began = perf_counter()
    child = subprocess.Popen(command, cwd=directory, env=env, stdin=side, stdout=side, stderr=side)
    os.close(side)
    output = b""
    with suppress(OSError):  # the terminal has no other end any more
        while read := os.read(terminal, 65536):
            output += read
    _, status, usage = os.wait4(child.pid, 0)
    seconds = perf_counter() - began
    os.close(terminal)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{' '.join(command)}\nfailed with exit code {child.returncode}:\n{output.decode()[-2000:]}")
    return seconds, usage.ru_maxrss * 1024


def format_table(results: dict[str, list[Measurement]]) -> str:
    """Return a markdown table with a row per contestant."""
    rows = [format_row(CONTESTANTS[name].label, measured, results.get(BASELINE)) for name, measured in results.items()]
    lines = [COLUMNS, ["---"] * len(COLUMNS), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def format_row(label: str, measured: Sequence[Measurement], baseline: Sequence[Measurement] | None) -> list[str]:
    whole, first, later = ([getattr(one, name) for one in measured] for name in ("whole", "first", "later"))
    ratios = [format_ratio(measured, baseline, name) if baseline else "" for name in ("whole", "later")]
    memory = median(one.peak_memory for one in measured) / 1e6
    accuracy = median(one.accuracy for one in measured)
    times = [format_range(whole, 1), ratios[0], format_range(first, 3), format_range(later, 3), ratios[1]]
    return [label, *times, f"{memory:,.0f}", f"{accuracy:.3f}"]


def format_range(values: Sequence[float], digits: int) -> str:
    """Return the median, and the range in parentheses if there are several values."""
    spread = f" ({min(values):.{digits}f}–{max(values):.{digits}f})" if len(values) > 1 else ""
    return f"{median(values):.{digits}f}{spread}"


def format_ratio(measured: Sequence[Measurement], baseline: Sequence[Measurement], name: str) -> str:
    """Return the median of the ratios of the two runs of each round."""
    pairs = zip(measured, baseline, strict=True)
    return f"{median(getattr(one, name) / getattr(other, name) for one, other in pairs):.2f}"


def describe_machine() -> str:
    """Return date, hardware and versions in one line."""
    models = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ", ".join(f"{name} {version(name)}" for name in VERSIONS if find_spec(name))
    hardware = f"{os.cpu_count()} cores of {models[0] if models else platform.machine()}, {gigabytes:.0f} GiB"
    return f"{date.today()}, {hardware}, Python {platform.python_version()}, {packages}."


if __name__ == "__main__":
    main()
