"""Files of trained weights: tensors are read from them, code never is run."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor

from microstep.errors import DataError

HOLDERS = ("model", "state_dict")  #: the keys under which checkpoints, ours too, keep a model's state
DENSE = (torch.strided, "cpu")
WRAPPERS = ("model.", "module.")  #: what wrappers, ours too, put before every name


def state_in(file: Path, subject: str) -> OrderedDict[str, Tensor]:
    """Return the state dict that a file holds, by itself or as `model` or `state_dict`, without a wrapper's prefix.

    Raises:
        DataError: where the file is not there, is damaged, or holds code or anything else than a state dict.
    """
    content = content_of(file, subject)
    for holder in HOLDERS:
        if isinstance(content, Mapping) and isinstance(content.get(holder), Mapping):
            content = content[holder]
    if not (isinstance(content, Mapping) and content and all(map(is_entry, content.items()))):
        raise refused(subject, file, "it holds no state dict")
    return bare(content)


def is_entry(pair: tuple[Any, Any]) -> bool:
    name, value = pair
    return isinstance(name, str) and isinstance(value, Tensor) and (value.layout, value.device.type) == DENSE


def content_of(file: Path, subject: str) -> Any:
    """Return what torch.load makes of a file, where it is tensors and plain values alone: no code in it is run.

    One that ends in `.safetensors` is read with safetensors: it holds a state dict by itself.
    """
    if not file.is_file():
        remedy = "give a file of weights, or DEFAULT for torchvision's own"
        raise DataError(subject, f"there is no file {file.absolute()}", remedy)
    try:
        if file.suffix == ".safetensors":  # torch.load takes them only since its later versions
            return load(file.read_bytes())
        return torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise refused(subject, file, f"it can't be read: {error.strerror or error}") from None
    except Exception:  # whatever torch makes of bytes that it wasn't given by us; its text may advise to run the code
        raise refused(subject, file, "it is damaged, or holds more than tensors, and code is not run") from None


def refused(subject: str, file: Path, reason: str) -> DataError:
    """Return the error about a file, which it names where the subject doesn't."""
    named = reason if subject.endswith(str(file)) else f"{file}: {reason}"
    return DataError(subject, named, "give a file made by torch.save(model.state_dict(), …) or safetensors")


def bare(state: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """Return a state without the prefix that all its names share, and with the versions that torch keeps beside it."""
    versions = getattr(state, "_metadata", {})
    while prefix := next((p for p in WRAPPERS if all(name.startswith(p) for name in state)), None):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
        versions = {f"{name}.".removeprefix(prefix).rstrip("."): version for name, version in versions.items() if name}
    result = OrderedDict(state)
    result._metadata = versions  # type: ignore[attr-defined]
    return result
