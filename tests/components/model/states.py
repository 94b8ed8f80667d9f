"""Files of pretrained weights for tests."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import get_model

NAME = "mobilenet_v3_small"
HEAD = {"classifier.3.weight", "classifier.3.bias"}
CLASSES = 7  #: of the weights in the files


def trained_state(name: str = NAME, **options: object) -> dict[str, Tensor]:
    """Return a state dict in which every weight and statistic differs from its initial value."""
    with torch.random.fork_rng():
        torch.manual_seed(99)
        state = get_model(name, num_classes=CLASSES, **options).state_dict()
        for key, tensor in state.items():
            if tensor.is_floating_point():
                tensor += 0.5 * torch.rand_like(tensor) if "running" in key else 0.05 * torch.randn_like(tensor)
    return state


def saved(content: object, file: Path) -> str:
    """Save content with torch.save and return the file's name."""
    torch.save(content, file)
    return str(file)


def core(model: nn.Module) -> nn.Module:
    """Return torchvision's model without our wrappers."""
    while type(model).__module__.startswith("microstep."):
        model = model.model
    return model
