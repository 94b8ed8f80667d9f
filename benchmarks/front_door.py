"""Time of `--help`, `--cfg job` and a config error, against `python -c "import torch"`.

    python benchmarks/front_door.py [rounds]

Measures whole processes, alternating. Prints medians and the ratio to importing torch.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path
from time import perf_counter

TRAIN = str(Path(__file__).resolve().parents[1] / "train.py")
COMMANDS = {
    "import torch": ["-c", "import torch"],
    "--help": [TRAIN, "--help"],
    "--cfg job": [TRAIN, "--cfg", "job"],
    "acum=2 (misspelt key)": [TRAIN, "acum=2"],
    "optimizer.lr=abc (wrong type)": [TRAIN, "optimizer.lr=abc"],
    "precision=fp31 (no such option)": [TRAIN, "precision=fp31"],
    "accum=0 (out of range)": [TRAIN, "accum=0"],
    "-m, six jobs, one bad": [TRAIN, "-m", "precision=fp32,amp", "accum=1,2,0"],
}


def seconds(words: list[str]) -> float:
    start = perf_counter()
    subprocess.run([sys.executable, *words], capture_output=True, check=False)
    return perf_counter() - start


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for turn in range(rounds + 1):
        for name, words in COMMANDS.items():
            took = seconds(words)
            if turn:
                times[name].append(took)
    base = statistics.median(times["import torch"])
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:34} {median:6.3f} s   {median / base:.2f} of importing torch")


if __name__ == "__main__":
    main()
