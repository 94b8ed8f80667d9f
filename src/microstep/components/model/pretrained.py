"""From trained weights to a model for other classes: all but the head is loaded, the head is made anew."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision.models import get_model_weights

from microstep.components.model.weights import DEFAULT_WEIGHTS, find_default_file, read_state_dict
from microstep.errors import DataError

MeanAndStd = tuple[tuple[float, ...], tuple[float, ...]]
AUXILIARY_PREFIXES = ("aux1.", "aux2.", "AuxLogits.")  #: the training aids of GoogLeNet and Inception v3
DENSE_LAYER = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)")  #: densenet's file has the names of 2017


def pretrained_options(name: str) -> dict[str, Any]:
    """Return the constructor's options that go with an architecture's weights, as torchvision itself sets them.

    GoogLeNet and Inception v3 shift the colours to where they were trained, and have no auxiliary heads, whose outputs
    nothing here reads; a vision transformer has as many positions as its weights.
    """
    if name in ("googlenet", "inception_v3"):
        return {"transform_input": True, "aux_logits": False}
    return {"image_size": get_default_weights(name).meta["min_size"][0]} if name.startswith("vit_") else {}


def pretrained_normalization(name: str) -> MeanAndStd:
    """Return the mean and deviation of each colour that torchvision's default weights were trained with, on 0…1."""
    transforms = get_default_weights(name).transforms()
    return tuple(transforms.mean), tuple(transforms.std)


def get_default_weights(name: str) -> Any:
    """Return torchvision's description of its default weights: nothing is fetched."""
    return get_model_weights(name).DEFAULT


class EmptyParameterMode(TorchFunctionMode):
    """Gives parameters a shape and no memory. What a constructor computes with stays real, unlike on `meta`."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        """Make what is empty without memory."""
        return func(*args, **{**(kwargs or {}), **({"device": "meta"} if func is torch.empty else {})})


def find_head_names(model: nn.Module, build: Callable[..., nn.Module], num_classes: int) -> frozenset[str]:
    """Return the names of the tensors whose shape depends on the number of classes; no random number is drawn.

    Args:
        build: makes a model like `model`, of another `num_classes`.
    """
    with torch.random.fork_rng(devices=[]), EmptyParameterMode():
        other = build(num_classes=num_classes + 1).state_dict()
    return frozenset(name for name, tensor in model.state_dict().items() if tensor.shape != other[name].shape)


def load_backbone(model: nn.Module, head: frozenset[str], name: str, weights: str) -> None:
    """Load everything but the head, bit for bit: no name may be missing, none left over. The head stays as it is.

    Args:
        name: the architecture.
        weights: `DEFAULT`, or a file, whose own head may be of any number of classes.

    Raises:
        DataError: for weights that can't be had, can't be read, or are another architecture's.
    """
    subject = f"model.weights={weights}"
    file = (
        find_default_file(get_default_weights(name).url) if weights == DEFAULT_WEIGHTS else Path(weights).expanduser()
    )
    own = model.state_dict()
    state = adapt_state(read_state_dict(file, subject), own, head)
    misfit = describe_wrong_shape(state, own) or load_and_describe_wrong_names(model, state)
    if misfit:
        raise DataError(subject, f"it doesn't fit {name}: {misfit}", "set model.name to what the weights are of")


def adapt_state(
    state: OrderedDict[str, Tensor], model_state: Mapping[str, Tensor], head: frozenset[str]
) -> OrderedDict[str, Tensor]:
    """Return a state under today's names, with the model's own head, and no auxiliary heads that it hasn't."""
    versions = {"": model_state._metadata[""]} | state._metadata  # type: ignore[attr-defined]  # MNASNet insists on its own
    unknown = tuple(aid for aid in AUXILIARY_PREFIXES if not any(name.startswith(aid) for name in model_state))
    renamed = {DENSE_LAYER.sub(r"\1\2", name): tensor for name, tensor in state.items() if not name.startswith(unknown)}
    result = OrderedDict(renamed | {name: model_state[name] for name in head})
    result._metadata = versions  # type: ignore[attr-defined]
    return result


def describe_wrong_shape(state: Mapping[str, Tensor], model_state: Mapping[str, Tensor]) -> str:
    """Return what is said of the first tensor of another shape; nothing where there is none."""
    for name, tensor in state.items():
        if name in model_state and tensor.shape != model_state[name].shape:
            return f"{name} is {format_shape(tensor)} and should be {format_shape(model_state[name])}"
    return ""


def format_shape(tensor: Tensor) -> str:
    return " × ".join(map(str, tensor.shape)) or "one number"


def load_and_describe_wrong_names(model: nn.Module, state: Mapping[str, Tensor]) -> str:
    """Load a state; return what is said of names that are missing or left over, nothing where all fit."""
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except (RuntimeError, ValueError) as error:
        return " ".join(str(error).split())
    lacks = f"it lacks {format_names(missing)}" if missing else ""
    return ", ".join(filter(None, (lacks, f"it has {format_names(unexpected)} besides" if unexpected else "")))


def format_names(names: list[str]) -> str:
    return f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0]
