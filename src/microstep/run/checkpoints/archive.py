"""Packs a state into a checkpoint file, and unpacks one that holds plain data only."""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from microstep.errors import CheckpointRefused

#: What the pickle in an archive may name: what snapshots are made of. torch's own list also has bytearray, of any size.
ALLOWED_GLOBALS = re.compile(
    r"collections (OrderedDict|Counter)|torch\._utils _rebuild_tensor_v2|"
    r"torch (Size|device|\w+Storage|[a-z]+\d+\w*|bool)"
)
MAX_PICKLE_BYTES = 2**26  #: bytes of what an archive says besides its tensors


def serialize_state(state: Mapping[str, Any]) -> bytes:
    """Return a state as torch.save writes it."""
    stream = io.BytesIO()
    torch.save(dict(state), stream)
    return stream.getvalue()


def deserialize_state(file: Path, content: bytes) -> dict[str, Any]:
    """Return the state that a checkpoint's bytes hold, on the CPU. No code in them is run.

    Raises:
        CheckpointRefused: where they are no archive of torch's, declare more than they hold, or are more than tensors
            and plain values.
    """
    try:
        check_plain_archive(content)
        return dict(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
    except Exception as error:  # whatever zipfile, pickletools and torch make of bytes that we didn't write
        reason = f"torch can't read it: {next(iter(str(error).splitlines()), type(error).__name__)}"
        raise CheckpointRefused(str(file), reason, "use another checkpoint") from None


def check_plain_archive(content: bytes) -> None:
    """Refuse what torch.save doesn't write of a snapshot, before torch unpacks any of it.

    Raises:
        ValueError: for a packed member, one that declares more than there is, or a pickle that names anything else.
        BadZipFile: for what is no archive: a pickle by itself, and torch's format of before 2020.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
        size = sum(member.file_size for member in members)
        if any(member.compress_type != zipfile.ZIP_STORED for member in members) or size > len(content):
            raise ValueError("its archive is packed, or declares more than it holds")
        for member in members:
            if member.filename.endswith(".pkl"):
                check_plain_pickle(archive.read(member))


def check_plain_pickle(content: bytes) -> None:
    """Refuse a pickle that names more than tensors are made of."""
    if len(content) > MAX_PICKLE_BYTES:
        raise ValueError("its pickle is far too large")
    foreign = [name for name in find_pickle_globals(content) if not ALLOWED_GLOBALS.fullmatch(name)]
    if foreign:
        raise ValueError(f"it holds more than tensors and plain values ({foreign[0]}), and code is not run")


def find_pickle_globals(content: bytes) -> Iterator[str]:
    """Yield what a pickle names, as `module name`; `?` where it is put together while it is loaded."""
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in ("GLOBAL", "INST"):
            yield str(argument)
        elif opcode.name in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):
            yield "?"


PLAIN_TYPES = (bool, int, float, str, type(None))  #: no bytes: torch takes none with weights_only=True


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
        return snapshot_mapping(value, name)
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in PLAIN_TYPES or isinstance(value, torch.Size | torch.dtype | torch.device):
        return value
    if isinstance(value, list | tuple):
        copies = [snapshot(inner, f"{name}[{i}]") for i, inner in enumerate(value)]
        return copies if isinstance(value, list) else tuple(copies)
    reason = f"{name} is a {type(value).__name__}, and a checkpoint holds tensors and plain values only"
    raise CheckpointRefused("checkpoint", reason, "let its state_dict() say it so")


def snapshot_mapping(value: Mapping[Any, Any], name: str) -> dict[Any, Any]:
    """Return a copy of a dictionary; of a state dict with the versions that torch keeps beside it."""
    copied = {snapshot(key, f"a key of {name}"): snapshot(inner, f"{name}.{key}") for key, inner in value.items()}
    if isinstance(value, Counter):  # milestones of a schedule
        return Counter(copied)
    if not isinstance(value, OrderedDict):
        return copied
    ordered = OrderedDict(copied)
    if versions := getattr(value, "_metadata", None):
        ordered._metadata = snapshot_mapping(versions, f"{name}._metadata")  # type: ignore[attr-defined]
    return ordered
