"""Any of torchvision's classification models, by name."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import torchvision
from torch import Tensor, nn
from torchvision.models import get_model, list_models


class Repeated(nn.Module):
    """Shows grey images to a model made for colour ones: N × 1 × H × W becomes N × 3 × H × W, without a copy."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Return the model's logits."""
        logits: Tensor = self.model(images.expand(-1, 3, -1, -1))
        return logits


class Logits(nn.Module):
    """Leaves out the auxiliary outputs that GoogLeNet and Inception v3 add in training."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Return the main logits."""
        outputs = self.model(images)
        return outputs if isinstance(outputs, Tensor) else outputs.logits


def torchvision_model(name: str, input_shape: Sequence[int], num_classes: int, **options: Any) -> nn.Module:
    """Return one of torchvision's classification models, untrained; `options` go to its constructor.

    Raises:
        ValueError: for a name that torchvision doesn't have, naming the nearest.
    """
    known = list_models(module=torchvision.models)
    if name not in known:
        near = get_close_matches(name, known, n=3) or known
        raise ValueError(
            f"name={name} is not one of torchvision's classification models: nearest are {', '.join(near)}"
        )
    if name in ("googlenet", "inception_v3"):
        options = {"init_weights": True} | options
    model = Logits(get_model(name, num_classes=num_classes, **options))
    return Repeated(model) if input_shape[0] == 1 else model
