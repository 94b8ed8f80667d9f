"""A backbone that training leaves as it is."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Self

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from microstep.errors import ConfigError

BACKBONE = "backbone"


class Frozen(nn.Module):
    """A model of which the head alone is trained.

    No other parameter asks for a gradient, and BatchNorm without a parameter that does normalises by its running
    statistics, which don't move: nothing of the backbone changes by a bit, and it doesn't depend on the micro-batch.

    Args:
        head: the names of the parameters that are trained.
    """

    def __init__(self, model: nn.Module, head: Collection[str]) -> None:
        super().__init__()
        self.model = model
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in head)
        self.train(self.training)

    def forward(self, images: Tensor) -> Any:
        """Return the model's outputs."""
        return self.model(images)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all but the frozen BatchNorm layers, which stay in evaluation mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm) and not any(p.requires_grad for p in module.parameters()):
                module.eval()
        return self


def check_freeze(freeze: str | None, weights: str | None) -> None:
    """Refuse what can't be frozen.

    Raises:
        ConfigError: for another word than null and `backbone`, and for a backbone without weights.
    """
    if freeze not in (None, BACKBONE):
        raise ConfigError(f"model.freeze={freeze}", "no such option", f"the options are null, {BACKBONE}")
    if freeze and weights is None:
        reason = "a backbone without weights would be frozen at random numbers"
        raise ConfigError(f"model.freeze={freeze}", reason, "give model.weights, DEFAULT or a file")
