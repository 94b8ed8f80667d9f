"""A copy of a training state: what a checkpoint holds while training goes on."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from microstep.errors import CheckpointRefused

PLAIN = (bool, int, float, str, type(None))  #: no bytes: torch takes none with weights_only=True


def snapshot(value: Any, name: str = "state") -> Any:
    """Return a copy, on the CPU, that nothing done to the original changes.

    Args:
        value: tensors, plain values, and dictionaries, lists and tuples of them.
        name: what an error calls it.

    Raises:
        CheckpointRefused: for anything else: it could be written, but loading it would mean to run its code.
    """
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return mapping(value, name)
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in PLAIN or isinstance(value, torch.Size | torch.dtype | torch.device):
        return value
    if isinstance(value, list | tuple):
        copies = [snapshot(inner, f"{name}[{i}]") for i, inner in enumerate(value)]
        return copies if isinstance(value, list) else tuple(copies)
    reason = f"{name} is a {type(value).__name__}, and a checkpoint holds tensors and plain values only"
    raise CheckpointRefused("checkpoint", reason, "let its state_dict() say it so")


def mapping(value: Mapping[Any, Any], name: str) -> dict[Any, Any]:
    """Return a copy of a dictionary; of a state dict with the versions that torch keeps beside it."""
    copied = {snapshot(key, f"a key of {name}"): snapshot(inner, f"{name}.{key}") for key, inner in value.items()}
    if isinstance(value, Counter):  # milestones of a schedule
        return Counter(copied)
    if not isinstance(value, OrderedDict):
        return copied
    ordered = OrderedDict(copied)
    if versions := getattr(value, "_metadata", None):
        ordered._metadata = mapping(versions, f"{name}._metadata")  # type: ignore[attr-defined]
    return ordered
