"""Models of torchvision by name, with pretrained weights and frozen layers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from statistics import fmean
from typing import Any, Self

import torchvision
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models import get_model, list_models

from microstep.components.model.pretrained import (
    MeanAndStd,
    find_head_names,
    load_backbone,
    pretrained_normalization,
    pretrained_options,
)
from microstep.errors import ConfigError


class LogitsOnly(nn.Module):
    """Leaves out the auxiliary outputs that GoogLeNet and Inception v3 add in training.

    Args:
        normalization: the mean and deviation, a number a colour, that the weights were trained with; None without any.
    """

    def __init__(self, model: nn.Module, normalization: MeanAndStd | None = None) -> None:
        super().__init__()
        self.model, self.normalisation = model, normalization

    def forward(self, images: Tensor) -> Tensor:
        """Return the main logits."""
        outputs = self.model(images)
        return outputs if isinstance(outputs, Tensor) else outputs.logits


class GrayscaleAdapter(nn.Module):
    """Shows grey images to a model made for colour ones: N × 1 × H × W becomes N × 3 × H × W, without a copy.

    Its `normalisation` has one number where the model's has three: their mean.
    """

    def __init__(self, model: LogitsOnly) -> None:
        super().__init__()
        self.model, colours = model, model.normalisation
        self.normalisation = colours and ((fmean(colours[0]),), (fmean(colours[1]),))

    def forward(self, images: Tensor) -> Tensor:
        """Return the model's logits."""
        logits: Tensor = self.model(images.expand(-1, 3, -1, -1))
        return logits


def torchvision_model(
    name: str,
    input_shape: Sequence[int],
    num_classes: int,
    weights: str | None = None,
    freeze: str | None = None,
    load_weights: bool = True,
    **options: Any,
) -> nn.Module:
    """Return one of torchvision's classification models; `options` go to its constructor.

    With weights, the head, which is what depends on the number of classes, is made anew, from the seed alone: also for
    as many classes as the weights have. The model's `normalisation` is the mean and deviation of each channel, on 0…1,
    that torchvision's default weights of this architecture were trained with, and those of a file are taken to be; for
    grey images the mean of the three colours'; None without weights.

    Args:
        weights: null; `DEFAULT`, torchvision's best, fetched into torch.hub's directory if they aren't there; or a file
            with a state dict (`.safetensors` or torch's), or a checkpoint with one as `model` or `state_dict`.
        freeze: null; or `backbone`, and the head alone is trained.
        load_weights: false leaves the weights unread, for a model whose own are loaded afterwards.

    Raises:
        ValueError: for a name that torchvision doesn't have, naming the nearest.
        ConfigError: for what can't be frozen, and for torchvision's former option `pretrained`.
        DataError: for weights that can't be had, can't be read, or are another architecture's.
    """
    check_model_name(name)
    check_freeze(freeze, weights)
    check_no_pretrained(options)
    build = partial(get_model, name, **(default_options(name, weights) | options))
    model = build(num_classes=num_classes)
    if weights is None:
        return wrap_model(model, input_shape, None)
    head = find_head_names(model, build, num_classes)
    if load_weights:
        load_backbone(model, head, name, weights)
    return wrap_model(FrozenBackbone(model, head) if freeze else model, input_shape, pretrained_normalization(name))


def wrap_model(model: nn.Module, input_shape: Sequence[int], normalization: MeanAndStd | None) -> nn.Module:
    """Return a model that takes images of this shape and gives logits alone."""
    logits = LogitsOnly(model, normalization)
    return GrayscaleAdapter(logits) if input_shape[0] == 1 else logits


def default_options(name: str, weights: str | None) -> dict[str, Any]:
    """Return the constructor's options that are not torchvision's defaults."""
    initialised = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    return initialised | ({} if weights is None else pretrained_options(name))


def check_model_name(name: str) -> None:
    """Refuse a name that torchvision doesn't have."""
    known = list_models(module=torchvision.models)
    if name not in known:
        near = get_close_matches(name, known, n=3) or known
        raise ValueError(
            f"name={name} is not one of torchvision's classification models: nearest are {', '.join(near)}"
        )


def check_no_pretrained(options: Mapping[str, Any]) -> None:
    """Refuse the option that would fetch weights behind the back of `load_weights`."""
    if "pretrained" in options:
        value = options["pretrained"]
        raise ConfigError(f"model.pretrained={value}", "it is called weights now", "give model.weights=DEFAULT")


BACKBONE = "backbone"


class FrozenBackbone(nn.Module):
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
