"""Loops in several processes: `torchrun … -m benchmarks.contestants.in_processes ddp|accelerate WORKLOAD_FILE FILE`.

Each process trains on its share of the samples with a batch size of its own, as in the documentation of both. The file
gets the seconds of each step, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from time import perf_counter

import torch
import torch.distributed as dist
from benchmarks.contestants.workload import BATCH_SIZE, Workload, loss_function
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset


def build(workload: Workload) -> tuple[nn.Module, TensorDataset]:
    """Return the model, in the layout that microstep uses on a CPU, and the samples in memory."""
    torch.manual_seed(workload.seed)
    return workload.build_model().to(memory_format=torch.channels_last), TensorDataset(*workload.inputs("train"))


def train_with_ddp(workload: Workload) -> list[float]:
    """Train with torch's wrapper, over gloo."""
    dist.init_process_group("gloo")
    model, samples = build(workload)
    wrapped = DistributedDataParallel(model)
    optimizer, scheduler = workload.build_optimizer(model)
    sampler: DistributedSampler[tuple[Tensor, ...]] = DistributedSampler(samples)
    loader, seconds = DataLoader(samples, BATCH_SIZE, sampler=sampler), []
    for epoch in range(workload.epochs):
        sampler.set_epoch(epoch)
        steps = (optimizer.step, scheduler.step, optimizer.zero_grad)
        seconds.extend(train_epoch(wrapped, loader, Tensor.backward, steps))
    dist.destroy_process_group()
    return seconds


def train_with_accelerate(workload: Workload) -> list[float]:
    """Train with Accelerate, which finds the processes in torchrun's environment."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model, samples = build(workload)
    loader = DataLoader(samples, BATCH_SIZE, shuffle=True)
    prepared = accelerator.prepare(model, *workload.build_optimizer(model), loader)
    model, optimizer, scheduler, loader = prepared
    steps = (optimizer.step, scheduler.step, optimizer.zero_grad)
    seconds = [one for _ in range(workload.epochs) for one in train_epoch(model, loader, accelerator.backward, steps)]
    accelerator.end_training()
    return seconds


def train_epoch(
    model: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor]],
    backward: Callable[[Tensor], object],
    steps: Iterable[Callable[[], object]],
) -> list[float]:
    """Train an epoch and return the seconds of each step."""
    seconds = []
    for inputs, targets in loader:
        began = perf_counter()
        backward(loss_function(model(inputs.to(memory_format=torch.channels_last)), targets))
        for step in steps:
            step()
        seconds.append(perf_counter() - began)
    return seconds


if __name__ == "__main__":
    name, workload_file, file = sys.argv[1:]
    torch.set_num_threads(1)
    train = {"ddp": train_with_ddp, "accelerate": train_with_accelerate}[name]
    measured = train(Workload(**torch.load(workload_file), seed=0))
    if os.environ["RANK"] == "0":
        Path(file).write_text(json.dumps(measured))
