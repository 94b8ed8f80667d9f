"""Experiments on digits whose precision is open, with models of which the answer is known."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from microstep.config.compose import compose
from microstep.training.builders import build_partial_components
from microstep.training.components import PartialComponents

CPU = torch.device("cpu")
PIXELS, CLASSES = 64, 10


def trial(model: nn.Module | None = None, *words: str) -> PartialComponents:
    """Return an experiment on digits, with a model of one's own."""
    built = build_partial_components(compose(["threads=1", "progress=false", "model=mlp", *words]))
    return built if model is None else replace(built, model=model)


class Faint(nn.Module):
    """Two linear layers, the second times a factor: its gradient is as many times smaller, or larger."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.plain, self.faint = nn.Linear(PIXELS, CLASSES), nn.Linear(PIXELS, CLASSES)
        self.factor = factor

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.flatten(1)
        return self.plain(pixels) + self.factor * self.faint(pixels)


class Picky(Faint):
    """A model that fails in the ways of machines: not under bf16, not for lack of memory, …"""

    def __init__(self, error: Exception) -> None:
        super().__init__(1.0)
        self.error = error

    def forward(self, images: Tensor) -> Tensor:
        if torch.is_autocast_enabled("cpu"):
            raise self.error
        return super().forward(images)
