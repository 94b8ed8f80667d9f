"""Cost of reduction=canonical: `python benchmarks/canonical.py [pairs] [small_cnn|resnet18]`.

Trains on synthetic images with an effective batch of 256, with reduction=sum and with canonical, in one process and in
two, each with one thread. The runs of a pair alternate. Figures are samples per second of the last epoch.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

TRAIN = Path(__file__).resolve().parents[1] / "train.py"
COMMON = (
    *("threads=1", "progress=false", "epochs=3", "effective_batch_size=256", "dataset=synthetic"),
    *("dataset.val_samples=32", "dataset.test_samples=32"),
)
MODELS = {
    "small_cnn": ("model=small_cnn", "dataset.size=28", "dataset.channels=1", "dataset.samples=2080"),
    "resnet18": ("model=resnet18", "dataset.samples=288"),
}
PROCESSES = {1: (), 2: ("strategy=ddp", "strategy.processes=2")}
REDUCTIONS = {"sum": (), "canonical": ("reduction=canonical",)}


def measure_speed(words: tuple[str, ...]) -> float:
    """Return the samples per second of a run's last epoch."""
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, str(TRAIN), *COMMON, *words, "hydra.run.dir=run"]
        subprocess.run(command, cwd=home, check=True, stdout=subprocess.DEVNULL)
        return float(json.loads((Path(home) / "run/run.json").read_text())["samples_per_second"])


def main(pairs: int, models: list[str]) -> None:
    print("| model | precision | processes | sum, samples/s | canonical | time, canonical ÷ sum |")
    print("|---|---|---|---|---|---|")
    for model in models:
        for precision in ("fp32", "amp"):
            for processes, started in PROCESSES.items():
                words_of_all = (*MODELS[model], f"precision={precision}", *started)
                found = [
                    tuple(measure_speed((*words_of_all, *reduction)) for reduction in REDUCTIONS.values())
                    for _ in range(pairs)
                ]
                sums, canonical = zip(*found, strict=True)
                ratio = median(one / other for one, other in found)
                row = (model, precision, processes, f"{median(sums):,.0f}", f"{median(canonical):,.0f}", f"{ratio:.2f}")
                print("|", " | ".join(map(str, row)), "|", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3, sys.argv[2:] or list(MODELS))
