"""precision=amp, channels-last, against fp32 in the default layout: steady training of small_cnn on 28×28 images.

    python benchmarks/mixed_precision.py [rounds]

The contestants alternate in one process, part of an epoch each (synthetic images of Fashion-MNIST's shape).
"""

from __future__ import annotations

import statistics
import sys
from time import perf_counter

import torch
from torch import nn

from microstep.components.model import SmallCNN
from microstep.components.precision import amp, full
from microstep.components.step import StandardStep
from microstep.components.task import Classification
from microstep.types.data import Batch
from microstep.types.protocols import Precision

CPU = torch.device("cpu")
BATCH, WINDOWS = 64, 30


def windows() -> list[list[Batch]]:
    generator = torch.Generator().manual_seed(0)
    rows = torch.arange(BATCH)
    made = []
    for _ in range(WINDOWS):
        inputs = torch.randn(BATCH, 1, 28, 28, generator=generator)
        made.append([Batch(inputs, torch.randint(0, 10, (BATCH,), generator=generator), rows, rows)])
    return made


def trainee(precision: Precision) -> tuple[nn.Module, torch.optim.Optimizer, StandardStep]:
    torch.manual_seed(0)
    model = precision.prepare(SmallCNN((1, 28, 28), 10))
    task = Classification([str(i) for i in range(10)], torch.arange(10), CPU)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)
    return model, optimizer, StandardStep(precision, task, task.metrics(), None)


def seconds(precision: Precision, data: list[list[Batch]], kit) -> float:
    model, optimizer, step = kit
    start = perf_counter()
    for window in data:
        step(model, optimizer, window, float(BATCH))
    return perf_counter() - start


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    data = windows()
    contestants: dict[str, Precision] = {
        "fp32, default layout": full(CPU, channels_last=False),
        "fp32, channels-last": full(CPU, channels_last=True),
        "amp (bf16), default layout": amp(CPU, channels_last=False),
        "amp (bf16), channels-last": amp(CPU),
    }
    kits = {name: trainee(precision) for name, precision in contestants.items()}
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, precision in contestants.items():
            took = seconds(precision, data, kits[name])
            if turn:
                times[name].append(took)
    base = statistics.median(times["fp32, default layout"])
    for name, values in times.items():
        median = statistics.median(values)
        print(
            f"{name:28} {WINDOWS * BATCH / median:9,.0f} samples/s   {base / median:.2f} × fp32 in the default layout"
        )


if __name__ == "__main__":
    main()
