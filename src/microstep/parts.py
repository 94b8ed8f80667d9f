"""The parts of a run that training and evaluation share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from microstep.loaders import Loaders
from microstep.types.protocols import Accumulation, Dataset, Precision, Task


@dataclass(frozen=True)
class Parts:
    """What training and evaluation share."""

    device: torch.device
    precision: Precision
    dataset: Dataset
    task: Task
    model: nn.Module
    accumulation: Accumulation
    loaders: Loaders

    @property
    def steps(self) -> int:
        """Optimizer steps an epoch."""
        return self.accumulation.steps(len(self.dataset.splits["train"]))

    @property
    def parameters(self) -> int:
        """Numbers that are trained."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)
