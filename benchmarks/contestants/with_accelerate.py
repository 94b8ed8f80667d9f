"""Accelerate: a loop of one's own over prepared objects, with a checkpoint of the whole state each epoch."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from benchmarks.contestants.clock import Clock
from benchmarks.contestants.workload import Workload, loss_function
from torch import nn
from torch.utils.data import DataLoader


def train(workload: Workload, clock: Clock, mixed_precision: str = "no") -> None:
    """Train."""
    accelerator = Accelerator(mixed_precision=mixed_precision)
    set_seed(workload.seed)
    model = workload.build_model()
    prepared = (model, *workload.build_optimizer(model), *workload.resident_loaders())
    model, optimizer, scheduler, train_loader, val_loader = accelerator.prepare(*prepared)

    clock.start()
    for epoch in range(1, workload.epochs + 1):
        model.train()
        for inputs, targets in train_loader:
            loss = loss_function(model(inputs), targets)
            accelerator.backward(loss)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        accuracy = evaluate(accelerator, model, val_loader)
        accelerator.save_state("state")
        accelerator.print(f"epoch {epoch}: validation accuracy {accuracy:.4f}")
        clock.lap(accuracy)


def evaluate(accelerator: Accelerator, model: nn.Module, loader: DataLoader) -> float:
    """Return the accuracy."""
    model.eval()
    correct = total = 0
    for inputs, targets in loader:
        with torch.no_grad():
            outputs = model(inputs)
        predictions, references = accelerator.gather_for_metrics((outputs.argmax(dim=-1), targets))
        correct += (predictions == references).sum().item()
        total += len(references)
    return correct / total
