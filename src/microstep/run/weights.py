"""A run's best weights for others: one safetensors file that says all that is needed to use them."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from microstep.components.dataset import ImageDataset
from microstep.config.experiment import WEIGHTS_FILENAME, public_experiment
from microstep.errors import CheckpointRefused, escape_unprintable
from microstep.types.protocols import Dataset
from microstep.utils.files import write_atomic
from microstep.utils.json_files import replace_nonfinite

log = logging.getLogger("microstep.notice")
SERIALIZATION_ERRORS = (
    AttributeError,
    KeyError,
    RuntimeError,
    TypeError,
    ValueError,
    SafetensorError,
)  #: what no plain tensor raises
HEADER_LENGTH_BYTES = 8  #: bytes that hold the header's length; the header's own length is a multiple of it


@dataclass(frozen=True)
class WeightsFile:
    """Where a run's best weights are written, and what is known of them before it starts."""

    file: Path
    about: Mapping[str, str]

    def write(self, model: nn.Module, epoch: int, metrics: Mapping[str, float]) -> None:
        """Write the model's state, or warn where it is more than tensors that safetensors can hold.

        Names and dtypes are those of `state_dict()`. Of tied weights each name has a tensor of its own, so that
        `load_state_dict` is all that is needed. Equal weights make equal bytes.

        Args:
            metrics: of validation.

        Raises:
            StorageError: no file is left then.
        """
        about = {**self.about, "epoch": str(epoch), "metrics": json.dumps(replace_nonfinite(metrics))}
        try:
            content = serialize_weights(model.state_dict(), about)
        except SERIALIZATION_ERRORS as error:
            log.warning("%s is not written, safetensors can't hold this model: %s", self.file.name, first_line(error))
            return
        write_atomic(self.file, content)


def weights_file(directory: Path, config: DictConfig, dataset: Dataset, name: str) -> WeightsFile:
    """Return the file of a run; what its data don't have, class names or a normalisation, is left out.

    Args:
        name: the data set's.
    """
    facts = dataset.facts
    lists = {key: list(facts[key]) for key in ("class_names", "input_shape") if key in facts}
    described = {"architecture": public_experiment(config)["model"], **lists, **normalization_metadata(dataset)}
    about = {key: json.dumps(value, default=str) for key, value in described.items()}
    return WeightsFile(
        directory / WEIGHTS_FILENAME,
        {"format": "pt", "dataset": escape_unprintable(name), **about, **version_metadata()},
    )


def normalization_metadata(dataset: Dataset) -> dict[str, Any]:
    """Return what pictures are normalised by; the pixel value that means 1.0 only where it isn't 255."""
    if not isinstance(dataset, ImageDataset):
        return {}
    found, scale = dataset.normalisation, dataset.pictures["train"].scale
    return {"mean": found.mean, "std": found.std, **({} if scale == 255 else {"scale": scale})}


def version_metadata() -> dict[str, str]:
    with suppress(PackageNotFoundError):
        return {"microstep": version("microstep")}
    return {}


def serialize_weights(state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return a state as safetensors serialises it, with metadata in their order: it would write them in any."""
    dense = {name: copy_to_cpu(tensor) for name, tensor in state.items()}
    header, data = split_header(save(dense))
    metadata = {**metadata, "sha256": sha256(data).hexdigest()}
    text = json.dumps({"__metadata__": metadata, **header}).encode()
    text += b" " * (-len(text) % HEADER_LENGTH_BYTES)
    return b"".join([len(text).to_bytes(HEADER_LENGTH_BYTES, "little"), text, data])


def copy_to_cpu(tensor: Tensor) -> Tensor:
    """Return a tensor with memory of its own, dense and row by row, on the CPU."""
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def split_header(content: bytes) -> tuple[dict[str, Any], memoryview]:
    """Return the header and the tensors' bytes."""
    start = HEADER_LENGTH_BYTES + int.from_bytes(content[:HEADER_LENGTH_BYTES], "little")
    return json.loads(content[HEADER_LENGTH_BYTES:start]), memoryview(content)[start:]


def read_exported_weights(file: Path) -> tuple[dict[str, Tensor], int]:
    """Return the weights that a run has written for others, checked by SHA-256, and the epoch that they are of.

    Raises:
        CheckpointRefused: where it is missing, or is not what was written.
    """
    if not file.is_file():
        raise CheckpointRefused(str(file), "it is not there", "it is written when a run finishes; use checkpoint=best")
    try:
        content = file.read_bytes()
        state = load(content)
        header, data = split_header(content)
        about = header["__metadata__"]
        epoch, digest = int(about["epoch"]), about["sha256"]
    except Exception as error:  # whatever comes of bytes that weren't given by us
        raise CheckpointRefused(str(file), f"it can't be read: {first_line(error)}", "use checkpoint=best") from None
    if sha256(data).hexdigest() != digest:
        raise CheckpointRefused(str(file), "its checksum is not the one in its header", "use checkpoint=best")
    return state, epoch


def first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
