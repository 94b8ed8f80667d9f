"""Loads pretrained weights into a model for other classes. The head keeps its initialization."""

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision.models import get_model_weights

from microstep.components.model.metadata import MeanAndStd, parse_normalization
from microstep.components.model.weights import DEFAULT_WEIGHTS, find_default_file, format_shape, read_weights_file
from microstep.errors import DataError
from microstep.utils.files import expand_home

AUXILIARY_MODELS = ("googlenet", "inception_v3")  #: architectures with auxiliary heads
AUXILIARY_PREFIXES = ("aux1.", "aux2.", "AuxLogits.")  #: of the names of tensors in these heads
DENSE_LAYER = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)")  #: names of 2017 in densenet's files


def pretrained_options(name: str) -> dict[str, Any]:
    """Return the constructor's options that torchvision sets for an architecture's pretrained weights.

    GoogLeNet and Inception v3 transform their input to the range they were trained on. Their auxiliary heads are left
    out, as no loss uses them. A vision transformer takes the image size of its weights.
    """
    if name in AUXILIARY_MODELS:
        return {"transform_input": True, "aux_logits": False}
    return {"image_size": get_model_weights(name).DEFAULT.meta["min_size"][0]} if name.startswith("vit_") else {}


def published_normalization(name: str, file: str) -> MeanAndStd | None:
    """Return the mean and standard deviation of torchvision's weights in a file of this name; None for another name."""
    found = (weights.transforms() for weights in get_model_weights(name) if Path(weights.url).name == file)
    return next(((tuple(transforms.mean), tuple(transforms.std)) for transforms in found), None)


class EmptyParameterMode(TorchFunctionMode):
    """Allocates no memory for parameters, which `torch.empty` creates on the device `meta`.

    Other tensors are real, since some constructors compute with them: `torch.device("meta")` would break these.
    """

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **{**(kwargs or {}), **({"device": "meta"} if func is torch.empty else {})})


def find_head_names(model: nn.Module, build: Callable[..., nn.Module], num_classes: int) -> frozenset[str]:
    """Return the names of the tensors whose shape depends on the number of classes. The random state is unchanged."""
    with torch.random.fork_rng(devices=[]), EmptyParameterMode():
        other = build(num_classes=num_classes + 1).state_dict()
    return frozenset(name for name, tensor in model.state_dict().items() if tensor.shape != other[name].shape)


def load_torchvision_weights(model: nn.Module, head: frozenset[str], name: str, weights: str) -> MeanAndStd | None:
    """Load `DEFAULT` or a file into the backbone. Return the mean and standard deviation of its images, if known."""
    subject, default = f"model.weights={weights}", weights == DEFAULT_WEIGHTS
    file = find_default_file(get_model_weights(name).DEFAULT.url) if default else Path(expand_home(weights))
    content, metadata = read_weights_file(file, subject)
    load_backbone(model, head, name, content, subject)
    return published_normalization(name, file.name) or parse_normalization(metadata)


def load_backbone(
    model: nn.Module, head: frozenset[str], name: str, content: OrderedDict[str, Tensor], subject: str
) -> None:
    """Load a state dict, for any number of classes, into everything but the head. Raise DataError if it doesn't fit."""
    model_state = model.state_dict()
    state = adapt_state(content, model_state, head)
    if misfit := describe_wrong_shape(state, model_state) or load_and_describe_wrong_names(model, state):
        raise DataError(subject, f"it doesn't fit {name}: {misfit}", "set model.name to that of the weights")


def adapt_state(
    state: OrderedDict[str, Tensor], model_state: Mapping[str, Tensor], head: frozenset[str]
) -> OrderedDict[str, Tensor]:
    """Return a state with current names and the model's head, without auxiliary heads that the model lacks."""
    versions = {"": model_state._metadata[""]} | state._metadata  # type: ignore[attr-defined]  # MNASNet needs its version
    unknown = tuple(prefix for prefix in AUXILIARY_PREFIXES if not any(n.startswith(prefix) for n in model_state))
    renamed = {DENSE_LAYER.sub(r"\1\2", name): tensor for name, tensor in state.items() if not name.startswith(unknown)}
    result = OrderedDict(renamed | {name: model_state[name] for name in head})
    result._metadata = versions  # type: ignore[attr-defined]
    return result


def describe_wrong_shape(state: Mapping[str, Tensor], model_state: Mapping[str, Tensor]) -> str:
    for name, tensor in state.items():
        if name in model_state and tensor.shape != model_state[name].shape:
            return f"{name} is {format_shape(tensor)} and should be {format_shape(model_state[name])}"
    return ""


def load_and_describe_wrong_names(model: nn.Module, state: Mapping[str, Tensor]) -> str:
    """Load a state. Return a message about missing and unexpected names, or an empty text."""
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except (RuntimeError, ValueError) as error:
        return " ".join(str(error).split())
    lacks = f"it lacks {format_names(missing)}" if missing else ""
    unused = f"it has {format_names(unexpected)} besides" if unexpected else ""
    return ", ".join(filter(None, (lacks, unused)))


def format_names(names: list[str]) -> str:
    return f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0]
