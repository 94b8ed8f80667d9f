"""Finds the smallest images that a model of torchvision or timm takes."""

from bisect import bisect_left

import torch
from torch import nn
from torch.func import functional_call

from microstep.errors import ConfigError


def check_image_size(model: nn.Module, name: str, usual: int, stated: int, height: int, width: int) -> None:
    """Raise ConfigError if an architecture can't be trained on images of this size.

    A convolutional model without auxiliary heads is not tried if it is `stated` to take the size, less than the usual.
    """
    is_stated = min(height, width) >= stated < usual and not getattr(model, "aux_logits", False)
    if is_stated or admits(model, height, width):
        return
    fixed = getattr(model, "image_size", None)  # of a vision transformer
    side = fixed or 1 + bisect_left(range(1, usual), True, key=lambda side: admits(model, side, side))
    if admits(model, side, side):
        reason = f"it can't take images of {height} × {width}, the smallest that it takes are {side} × {side}"
        remedy = f"set dataset.size={side} if the data set has that key, or choose another model"
        raise ConfigError(f"model.name={name}", reason, remedy)


def admits(model: nn.Module, height: int, width: int) -> bool:
    """Return True if two images pass through the model. Nothing is computed, so neither weights nor buffers change."""
    tensors = {key: tensor.to("meta") for key, tensor in [*model.named_parameters(), *model.named_buffers()]}
    try:
        with torch.no_grad():
            functional_call(model, tensors, torch.empty(2, 3, height, width, device="meta"))
    except (AssertionError, RuntimeError, ValueError):
        return False
    return True
