"""check=precision against a hand-written loop: milliseconds per step in each precision.

    python benchmarks/precision.py [rounds]

small_cnn, batch 64, fused SGD, on digits and on Fashion-MNIST. Both alternate by rounds. The loop warms up and times
as many steps as take about half a second. Ratios are medians over the rounds.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from time import perf_counter

import torch
import torch.nn.functional as F
from torch import Tensor

from microstep.components.model import SmallCNN
from microstep.config.compose import compose
from microstep.training.builders import build_partial_components
from microstep.training.components import PartialComponents
from microstep.training.profiling.profile import profile_precisions

NAMES = ("fp32", "bf16", "fp16")
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def by_hand(name: str, inputs: Tensor, targets: Tensor) -> float:
    """Return the seconds per step of a plain loop."""
    torch.manual_seed(0)
    model = SmallCNN(inputs.shape[1:], 10).to(memory_format=torch.channels_last).train()
    inputs = inputs.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 0.03, momentum=0.9, weight_decay=0.0005, nesterov=True, fused=True)
    scaler = torch.amp.GradScaler("cpu", enabled=name == "fp16")

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", DTYPES.get(name, torch.bfloat16), enabled=name in DTYPES):
            outputs = model(inputs)
        loss = F.cross_entropy(outputs.float(), targets)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        loss.item()

    for _ in range(2):
        step()
    count = max(2, int(0.5 / seconds(step, 1)))
    return seconds(step, count)


def seconds(step: Callable[[], None], count: int) -> float:
    began = perf_counter()
    for _ in range(count):
        step()
    return (perf_counter() - began) / count


def contest(trial: PartialComponents, rounds: int) -> None:
    """Print a row for each precision."""
    batch = next(iter(trial.windows()[0].batches))
    ours: dict[str, list[float]] = {name: [] for name in NAMES}
    theirs: dict[str, list[float]] = {name: [] for name in NAMES}
    for _ in range(rounds):
        found = profile_precisions(trial, NAMES, budget=0.5).measured
        for name in NAMES:
            ours[name].append(found[name].seconds)
            theirs[name].append(by_hand(name, batch.inputs, batch.targets))
    for name in NAMES:
        ratio = statistics.median(one / other for one, other in zip(ours[name], theirs[name], strict=True))
        print(f"  {name}  {speeds(ours, name)}   {speeds(theirs, name)}   {ratio:.2f}", flush=True)


def speeds(found: dict[str, list[float]], name: str) -> str:
    """Return a step's milliseconds, and how many times as fast as fp32 it is."""
    times = statistics.median(base / one for base, one in zip(found["fp32"], found[name], strict=True))
    return f"{1000 * statistics.median(found[name]):8.2f} ms {times:6.2f} ×"


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    for words in (["dataset=digits"], ["dataset=fashion_mnist"]):
        print(f"{words[0]}, {rounds} rounds\n        check=precision         by hand               ratio")
        contest(build_partial_components(compose([*words, "progress=false"])), rounds)


if __name__ == "__main__":
    main()
