"""Loop written by hand over resident tensors: as short as it gets, without bars and loggers."""

from __future__ import annotations

import ctypes

import torch
from benchmarks.contestants.clock import Clock
from benchmarks.contestants.workload import BATCH_SIZE, VAL_BATCH_SIZE, Workload, loss_function
from torch import Tensor, nn

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def train(workload: Workload, clock: Clock, keep_memory: bool = False, channels_last: bool = False) -> None:
    """Train. Each epoch ends with a validation, a checkpoint and a printed line."""
    if keep_memory:
        keep_freed_memory()
    torch.manual_seed(workload.seed)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = workload.build_model().to(memory_format=layout)
    optimizer, scheduler = workload.build_optimizer(model)
    (inputs, targets), (val_inputs, val_targets) = workload.inputs("train"), workload.inputs("val")
    inputs, val_inputs = inputs.to(memory_format=layout), val_inputs.to(memory_format=layout)

    clock.start()
    for epoch in range(1, workload.epochs + 1):
        model.train()
        for rows in torch.randperm(len(inputs)).split(BATCH_SIZE):
            optimizer.zero_grad()
            loss = loss_function(model(workload.augment(inputs[rows])), targets[rows])
            loss.backward()
            optimizer.step()
            scheduler.step()
        accuracy = evaluate(model, val_inputs, val_targets)
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}, "last.pt")
        print(f"epoch {epoch}: loss of the last batch {loss.item():.4f}, validation accuracy {accuracy:.4f}")
        clock.lap(accuracy)


def evaluate(model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """Return the accuracy."""
    model.eval()
    with torch.inference_mode():
        predictions = torch.cat([model(batch).argmax(1) for batch in inputs.split(VAL_BATCH_SIZE)])
    return (predictions == targets).float().mean().item()


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory. By default it returns large blocks to the kernel after each operation."""
    libc = ctypes.CDLL("libc.so.6")
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
