"""Tabular regression: diabetes progression from ten measurements."""

from __future__ import annotations

from pathlib import Path

import torch
from sklearn.datasets import load_diabetes
from torch import Tensor, nn

from microstep.types.data import Predictions, Report
from tests.tasks.tensors import TensorDataset, split_in_three


def diabetes() -> TensorDataset:
    source = load_diabetes()
    targets = torch.from_numpy(source.target).float()
    inputs = torch.from_numpy(source.data).float() * 20
    return split_in_three(inputs, (targets - targets.mean()) / targets.std(), {"features": 10}, "diabetes")


def perceptron(features: int, hidden: int = 16) -> nn.Module:
    return nn.Sequential(nn.Linear(features, hidden), nn.Tanh(), nn.Linear(hidden, 1), nn.Flatten(0))


class Regression:
    """Squared error. A sample's weight grows with the distance of its target from the mean."""

    def weight(self, targets: Tensor) -> Tensor:
        return 1 + targets.double().abs()

    def loss_sum(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (self.weight(targets).to(outputs.dtype) * (outputs - targets) ** 2).sum()

    def metrics(self) -> SquaredError:
        return SquaredError(self)

    def report(self, predictions: Predictions, directory: Path) -> Report:
        error = (predictions.outputs - predictions.targets).abs().mean().item()
        (directory / "report.txt").write_text(f"mean absolute error {error}\n")
        return Report(f"mean absolute error {error:.4f}")


class SquaredError:
    monitor = "loss"
    direction = "min"

    def __init__(self, task: Regression) -> None:
        self.task = task
        self.reset()

    def reset(self) -> None:
        self.total = self.weight = 0.0

    def state_dict(self) -> dict[str, float]:
        return {"total": self.total, "weight": self.weight}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.total, self.weight = state["total"], state["weight"]

    def update(self, outputs: Tensor, targets: Tensor, loss_sum: Tensor) -> None:
        self.total += loss_sum.item()
        self.weight += self.task.weight(targets).sum().item()

    def compute(self) -> dict[str, float]:
        return {"loss": self.total / max(self.weight, 1e-30)}

    running_values = compute
