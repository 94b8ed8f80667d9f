"""Serializes a state into a checkpoint file, and reads one that holds plain data only."""

import io
import pickletools
import re
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from microstep.errors import CheckpointRefused

#: Names that the pickle in an archive may use: those of snapshots. torch's own list also has bytearray, of any size.
ALLOWED_GLOBALS = re.compile(
    r"collections (OrderedDict|Counter)|torch\._utils _rebuild_tensor_v2|"
    r"torch (Size|device|\w+Storage|[a-z]+\d+\w*|bool)"
)
GLOBAL_OPCODES = ("GLOBAL", "INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4")
MAX_PICKLE_BYTES = 2**26  #: the tensors are not in the pickle
PLAIN_TYPES = (bool, int, float, str, type(None))  #: without bytes, which torch refuses with weights_only=True


def serialize_state(state: Mapping[str, Any]) -> bytes:
    stream = io.BytesIO()
    torch.save(dict(state), stream)
    return stream.getvalue()


def deserialize_state(file: Path, content: bytes) -> dict[str, Any]:
    """Return the state in the content of a checkpoint file, on the CPU. No code in it is run.

    Raise CheckpointRefused if it is not an archive of torch, declares more bytes than it has, or holds more than
    tensors and plain values.
    """
    try:
        check_plain_archive(content)
        return dict(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
    except Exception as error:  # zipfile, pickletools and torch raise many kinds for bytes that anyone may have written
        reason = f"torch can't read it: {next(iter(str(error).splitlines()), type(error).__name__)}"
        raise CheckpointRefused(str(file), reason, "use another checkpoint") from None


def check_plain_archive(content: bytes) -> None:
    """Refuse an archive that torch.save does not write for a snapshot, before torch unpacks any of it."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:  # refuses a bare pickle and torch's format before 1.6
        members = archive.infolist()
        size = sum(member.file_size for member in members)
        if any(member.compress_type != zipfile.ZIP_STORED for member in members) or size > len(content):
            raise ValueError("its archive is packed, or declares more than it holds")
        for pickle in [archive.read(member) for member in members if member.filename.endswith(".pkl")]:
            check_plain_pickle(pickle)


def check_plain_pickle(content: bytes) -> None:
    if len(content) > MAX_PICKLE_BYTES:
        raise ValueError("its pickle is far too large")
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in GLOBAL_OPCODES and not ALLOWED_GLOBALS.fullmatch(name := str(argument or "?")):
            raise ValueError(f"it holds more than tensors and plain values ({name}), and code is not run")


def snapshot(value: Any, name: str = "state") -> Any:
    """Return a copy on the CPU that later changes to the original do not affect.

    Raise CheckpointRefused, which gives the name of the value, for anything but tensors, plain values, and
    dictionaries, lists and tuples of them, because loading it would run its code.
    """
    if type(value) in PLAIN_TYPES:  # first, because nearly all values are plain
        return value
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return snapshot_mapping(value, name)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, torch.Size | torch.dtype | torch.device):
        return value
    if isinstance(value, list | tuple):
        copies = [snapshot(inner, f"{name}[{i}]") for i, inner in enumerate(value)]
        return copies if isinstance(value, list) else tuple(copies)
    reason = f"{name} is a {type(value).__name__}, and a checkpoint holds tensors and plain values only"
    raise CheckpointRefused("checkpoint", reason, "convert it in state_dict()")


def snapshot_mapping(value: Mapping[Any, Any], name: str) -> dict[Any, Any]:
    """Return a copy of a dictionary. That of a state dict keeps its `_metadata`, the versions of its modules."""
    copied = {snapshot(key, f"a key of {name}"): snapshot(inner, f"{name}.{key}") for key, inner in value.items()}
    if isinstance(value, Counter):  # milestones of a schedule
        return Counter(copied)
    if not isinstance(value, OrderedDict):
        return copied
    ordered = OrderedDict(copied)
    if versions := getattr(value, "_metadata", None):
        ordered._metadata = snapshot_mapping(versions, f"{name}._metadata")  # type: ignore[attr-defined]
    return ordered
