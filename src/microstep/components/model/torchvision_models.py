"""torchvision's classification models, with pretrained weights and a frozen backbone."""

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, Self

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from microstep.components.model.freezing import freeze_parameters
from microstep.components.model.metadata import MeanAndStd
from microstep.components.model.weights import strip_wrapper_prefixes
from microstep.errors import ConfigError

BACKBONE = "backbone"


class LogitsOnly(nn.Module):
    """Drops the auxiliary outputs that GoogLeNet and Inception v3 return in training.

    `normalization` is the mean and standard deviation of each channel that pretrained weights were trained with.
    """

    def __init__(self, model: nn.Module, normalization: MeanAndStd | None = None) -> None:
        super().__init__()
        self.model, self.normalization = model, normalization

    def forward(self, images: Tensor) -> Tensor:
        outputs = self.model(images)
        return outputs if isinstance(outputs, Tensor) else outputs.logits


class GrayscaleAdapter(nn.Module):
    """Repeats the channel of grayscale images for a model of color images. The three channels share memory.

    Its `normalization` has one channel: the average over those of the model.
    """

    def __init__(self, model: LogitsOnly) -> None:
        super().__init__()
        self.model, color = model, model.normalization
        self.normalization = color and ((fmean(color[0]),), (fmean(color[1]),))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images.expand(-1, 3, -1, -1))
        return logits


def torchvision_model(
    name: str,
    input_shape: Sequence[int],
    num_classes: int,
    weights: str | None = None,
    freeze: str | None = None,
    aux_logits: bool | None = None,
    load_weights: bool = True,
    **options: Any,
) -> nn.Module:
    """Return one of torchvision's classification models: N × C × H × W → N × num_classes, C being 1 or 3.

    With `weights`, the head (every tensor whose shape depends on the number of classes) is initialized from the seed,
    even if the weights have the same number of classes. The model then has an attribute `normalization`: the mean and
    standard deviation of each channel that the weights were trained with, None if a file does not say them. If the
    weights are not read, it is that of torchvision's default weights, which runs of 0.1.0 used for every file.

    Args:
        name: name of the architecture in torchvision.
        weights: null; `DEFAULT`, torchvision's best weights, downloaded into torch.hub's directory; or a file with a
            state dict (safetensors or torch), or a checkpoint that has one under `model` or `state_dict`.
        freeze: null, `backbone` to train the head only, or a regular expression of parameters to freeze.
        aux_logits: build the auxiliary heads of GoogLeNet and Inception v3. Their outputs are dropped, so they get no
            gradient. Null builds them without weights only, as runs of 0.1.0 did.
        load_weights: if false, the weights are not read, since the caller loads a state dict afterwards.
        options: further arguments of the architecture's constructor.

    Raises:
        ValueError: if torchvision has no such model. The message lists similar names.
        ConfigError: if `freeze` matches nothing, or is `backbone` without weights, torchvision's former option
            `pretrained` is given, or the architecture can't take images of this size.
        DataError: if the weights can't be downloaded or read, or belong to another architecture.
    """
    from torchvision import models  # takes two seconds

    from microstep.components.model import pretrained
    from microstep.components.model.image_size import check_image_size

    check_model_name(name, models.list_models(module=models), "torchvision")
    check_options(freeze, weights, options)
    build = partial(models.get_model, name, **(default_options(name, input_shape, weights, aux_logits) | options))
    model, head, normalization = build(num_classes=num_classes), frozenset[str](), None
    published = models.get_model_weights(name).DEFAULT
    if load_weights:
        usual, stated = published.transforms().crop_size[0], published.meta["min_size"][0]  # equal for a transformer
        check_image_size(model, name, usual, stated, *input_shape[1:])
    if weights is not None:
        head = pretrained.find_head_names(model, build, num_classes)
        normalization = pretrained.published_normalization(name, Path(published.url).name)
        if load_weights:
            normalization = pretrained.load_torchvision_weights(model, head, name, weights)
    return wrap_model(model, head, freeze, normalization, input_shape[0])


def wrap_model(
    model: nn.Module, head: Collection[str], freeze: str | None, normalization: MeanAndStd | None, channels: int
) -> nn.Module:
    """Return a model of color images for images of some channels, with frozen parameters and one output."""
    if freeze == BACKBONE:
        model = FrozenBackbone(model, head)
    elif freeze is not None:
        freeze_parameters(model, freeze)
    logits = LogitsOnly(model, normalization)
    return GrayscaleAdapter(logits) if channels == 1 else logits


def default_options(
    name: str, input_shape: Sequence[int], weights: str | None, aux_logits: bool | None
) -> dict[str, Any]:
    """Return the options of an architecture's constructor. Without weights, a ViT takes the image size of the data."""
    from microstep.components.model import pretrained

    has_heads = name in pretrained.AUXILIARY_MODELS
    options: dict[str, Any] = {"init_weights": True} if has_heads else {}
    if name.startswith("vit_"):
        patch = int(name.rpartition("_")[2])
        options["image_size"] = max(min(input_shape[1:]) // patch, 1) * patch
    options |= {} if weights is None else pretrained.pretrained_options(name)
    return options | ({"aux_logits": aux_logits} if aux_logits or (has_heads and aux_logits is not None) else {})


def unwrap(model: nn.Module) -> nn.Module:
    """Return torchvision's model without the wrappers of this module; any other model unchanged."""
    while isinstance(model, LogitsOnly | GrayscaleAdapter | FrozenBackbone):
        model = model.model
    return model


def load_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a state dict that has the names of the model, or of torchvision's model without its wrappers."""
    inner = unwrap(model)
    if inner is not model:
        versions: Any = inner.state_dict()._metadata  # type: ignore[attr-defined]  # MNASNet needs its own
        state = strip_wrapper_prefixes(state)
        state._metadata = versions | state._metadata  # type: ignore[attr-defined]
    inner.load_state_dict(state)


def check_model_name(name: str, known: Sequence[str], library: str) -> None:
    if name not in known:
        near = ", ".join(get_close_matches(name, known, n=3, cutoff=0))
        raise ValueError(f"name={name} is not one of {library}'s classification models: nearest are {near}")


def check_options(freeze: str | None, weights: str | None, options: Mapping[str, Any]) -> None:
    if "pretrained" in options:  # torchvision would download weights even if `load_weights` is false
        subject = f"model.pretrained={options['pretrained']}"
        raise ConfigError(subject, "it is called weights now", "give model.weights=DEFAULT")
    if freeze == BACKBONE and weights is None:
        reason = "a backbone without weights would be frozen at random numbers"
        raise ConfigError(f"model.freeze={freeze}", reason, "give model.weights, DEFAULT or a file")


class FrozenBackbone(nn.Module):
    """Trains only the head of a model, the parameters with these names.

    The other parameters have `requires_grad=False`. BatchNorm layers without trainable parameters stay in evaluation
    mode. Thus the backbone does not change at all, and its outputs do not depend on the micro-batch.
    """

    def __init__(self, model: nn.Module, head: Collection[str]) -> None:
        super().__init__()
        self.model = model
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in head)
        self.train(self.training)

    def forward(self, images: Tensor) -> Any:
        return self.model(images)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm) and not any(p.requires_grad for p in module.parameters()):
                module.eval()
        return self
