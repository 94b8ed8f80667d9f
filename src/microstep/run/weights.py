"""Writes and reads model.safetensors: the best weights of a run, with all that is needed to use them."""

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor, nn

from microstep.components.dataset import ImageDataset
from microstep.components.dataset.decoding import OWN_FIT
from microstep.components.model.metadata import HEADER_LENGTH_BYTES, parse_json, split_header
from microstep.components.model.torchvision_models import unwrap
from microstep.config.experiment import WEIGHTS_FILENAME, public_experiment, without_later
from microstep.errors import CheckpointRefused, escape_unprintable
from microstep.types.protocols import Dataset
from microstep.utils.files import write_atomic
from microstep.utils.json_files import replace_nonfinite

log = logging.getLogger("microstep.notice")


@dataclass(frozen=True)
class SavedWeights:
    """Weights of a checkpoint or of a model.safetensors."""

    source: Path  #: file, or directory of the checkpoints
    state: Mapping[str, Tensor]
    epoch: int
    metadata: Mapping[str, Any]  #: those of model.safetensors; empty for a checkpoint of 0.1.0


@dataclass(frozen=True)
class WeightsFile:
    """File for the best weights of a run."""

    file: Path
    metadata: Mapping[str, str]  #: known before the run starts

    def write(self, model: nn.Module, epoch: int, metrics: Mapping[str, float], task: object = None) -> None:
        """Write a model's state, epoch, validation metrics and fitted values, or warn if safetensors cannot hold it.

        Names and dtypes are those of `state_dict()`; a model of torchvision has torchvision's names. Each name of tied
        weights has its own tensor, so that `load_state_dict` needs nothing else. Equal weights give equal bytes. A
        write that fails leaves no partial file.
        """
        metadata = {**self.metadata, "epoch": str(epoch), "metrics": json.dumps(replace_nonfinite(metrics))}
        metadata |= fitted_metadata(task)
        try:
            content = serialize_weights(unwrap(model).state_dict(), metadata)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError, SafetensorError) as error:
            log.warning("%s is not written, safetensors can't hold this model: %s", self.file.name, first_line(error))
            return
        write_atomic(self.file, content)


def weights_file(directory: Path, config: DictConfig, dataset: Dataset, name: str) -> WeightsFile:
    """Return the weights file of a run. Class names, shape, normalization or fit are left out if it has none."""
    metadata = {"format": "pt", "dataset": escape_unprintable(name)}
    experiment = public_experiment(config)
    facts: dict[str, Any] = {"architecture": drop_later_defaults(experiment["model"]), "task": experiment.get("task")}
    facts |= {key: list(dataset.facts[key]) for key in ("class_names", "input_shape") if key in dataset.facts}
    if isinstance(dataset, ImageDataset):
        found, scale = dataset.normalization, dataset.image_sources["train"].scale  # scale: pixel value that means 1.0
        facts |= {"mean": found.mean, "std": found.std, **({} if scale == 255 else {"scale": scale})}
        metadata["fit"] = getattr(dataset.file_decoder, "fit", OWN_FIT)
    metadata |= {key: json.dumps(value, default=str) for key, value in facts.items()}
    with suppress(PackageNotFoundError):
        metadata["microstep"] = version("microstep")
    return WeightsFile(directory / WEIGHTS_FILENAME, metadata)


def drop_later_defaults(model: dict[str, Any]) -> dict[str, Any]:
    """Return a model's node without the later keys whose value is its constructor's default."""
    return without_later(model, "model.") | {key: model[key] for key in model if key == "aux_logits"}


def fitted_metadata(task: object) -> dict[str, str]:
    """Return the metadata of a task that has fitted values, see `Task`."""
    return {"fitted": json.dumps(fitted)} if (fitted := getattr(task, "fitted", None)) else {}


def parse_fitted(metadata: Mapping[str, Any]) -> dict[str, list[float]]:
    """Return the lists of numbers that a task has fitted; none if they are missing or malformed."""
    fitted = parse_json(metadata, "fitted", dict)
    numbers = [number for numbers in fitted.values() for number in (numbers if isinstance(numbers, list) else [None])]
    return fitted if all(isinstance(number, float) and isfinite(number) for number in numbers) else {}


def read_fitted(weights: SavedWeights, run_dir: Path) -> dict[str, list[float]]:
    """Return what the task fitted at the end of the run if model.safetensors is of the same epoch as the weights."""
    file, found = run_dir / WEIGHTS_FILENAME, weights.metadata
    with suppress(OSError, SafetensorError, TypeError), safe_open(file, "pt") as exported:
        metadata = exported.metadata() or {}
        found = metadata if metadata.get("epoch") == str(weights.epoch) else found
    return parse_fitted(found)


def serialize_weights(state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return a state in the safetensors format, with the metadata in their order: safetensors would shuffle them."""
    dense = {k: v.detach().to("cpu", copy=True, memory_format=torch.contiguous_format) for k, v in state.items()}
    header, data = split_header(save(dense))
    header = {"__metadata__": {**metadata, "sha256": sha256(data).hexdigest()}, **header}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % HEADER_LENGTH_BYTES)
    return b"".join([len(text).to_bytes(HEADER_LENGTH_BYTES, "little"), text, data])


def read_exported_weights(file: Path, subject: str | None = None, remedy: str = "use checkpoint=best") -> SavedWeights:
    """Return the checked weights in a model.safetensors. Raise CheckpointRefused for damage."""
    subject = subject or str(file)
    if not file.is_file():
        raise CheckpointRefused(subject, "it is not there", f"it is written when a run finishes; {remedy}")
    try:
        content = file.read_bytes()
        state = load(content)
        header, data = split_header(content)
        metadata = header.get("__metadata__", {})
        if not {"epoch", "sha256", "architecture"} <= metadata.keys():
            raise ValueError("it is not the model.safetensors of a run")
        epoch, digest = int(metadata["epoch"]), metadata["sha256"]
    except Exception as error:  # anything can be raised for bytes that anyone may have written
        raise CheckpointRefused(subject, f"it can't be read: {first_line(error)}", remedy) from None
    if sha256(data).hexdigest() != digest:
        raise CheckpointRefused(subject, "its checksum is not the one in its header", remedy)
    return SavedWeights(file, state, epoch, metadata)


def first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
