"""Segmentation of the pixels of a digit that are ink. Pixels at the border of ink are not labelled."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from microstep.types.data import Predictions, Report
from tests.tasks.tensors import TensorDataset, split_in_three

UNLABELLED = 255


def inked_digits() -> TensorDataset:
    images = torch.from_numpy(load_digits().images[:300]).float()[:, None]
    targets = (images[:, 0] > 8).long()
    targets[(images[:, 0] > 5) & (images[:, 0] <= 8)] = UNLABELLED
    noisy = images / 16 + 0.3 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return split_in_three(noisy, targets, {"channels": 1}, "inked digits")


def pixelwise(channels: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 2, 1))


class Segmentation:
    """Cross-entropy over labelled pixels. A sample's weight is their number."""

    def weight(self, targets: Tensor) -> Tensor:
        return (targets != UNLABELLED).sum((1, 2)).double()

    def loss_sum(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets, ignore_index=UNLABELLED, reduction="sum")

    def metrics(self) -> PixelAccuracy:
        return PixelAccuracy()

    def report(self, predictions: Predictions, directory: Path) -> Report:
        metrics = PixelAccuracy()
        metrics.update(predictions.outputs, predictions.targets, torch.zeros(()))
        return Report(f"pixel accuracy {metrics.compute()['pixel_accuracy']:.4f}")


class PixelAccuracy:
    monitor = "pixel_accuracy"
    direction = "max"

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.loss = self.right = self.pixels = 0.0

    def state_dict(self) -> dict[str, float]:
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, float]) -> None:
        vars(self).update(state)

    def update(self, outputs: Tensor, targets: Tensor, loss_sum: Tensor) -> None:
        labelled = targets != UNLABELLED
        self.loss += loss_sum.item()
        self.right += (outputs.argmax(1) == targets)[labelled].sum().item()
        self.pixels += labelled.sum().item()

    def compute(self) -> dict[str, float]:
        pixels = max(self.pixels, 1.0)
        return {"loss": self.loss / pixels, "pixel_accuracy": self.right / pixels}

    running_values = compute
