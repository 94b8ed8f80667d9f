"""Experiments that differ from the typed one in a few keys, and what all checks of cuts refuse."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from omegaconf import DictConfig, open_dict, read_write
from torch import nn

from microstep.config.experiment import micro_batch_size
from microstep.config.hydra_job import get_choices
from microstep.errors import ConfigError
from microstep.training.run_info import option_name, sampling_rows
from microstep.types.protocols import Dataset

FP64 = {"_target_": "microstep.components.precision.full", "dtype": "float64"}


def change_config(config: DictConfig, **values: Any) -> DictConfig:
    """Return a copy with other values of some root keys; what refers to them follows."""
    copy = config.copy()
    with read_write(copy), open_dict(copy):
        for key, value in values.items():
            copy[key] = value
    return copy


def subject_rows(config: DictConfig, dataset: Dataset, model: nn.Module) -> dict[str, str]:
    """Return the rows that say what is looked at: data, as training sees them, and model."""
    names = get_choices()
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {
        "data": f"{option_name(config, names, 'dataset')}: {dataset.summary}",
        **sampling_rows(config, names),
        "model": f"{get_model_name(config)}: {parameters:,} parameters",
    }


def get_model_name(config: DictConfig) -> str:
    """Return what a model is called: of torchvision's, by its own name."""
    return str(config.model.get("name") or option_name(config, get_choices(), "model"))


def get_effective_batch_size(config: DictConfig) -> int:
    """Return the samples of a full window."""
    return micro_batch_size(config) * int(config.accum)


def check_window_fits(config: DictConfig, samples: int) -> None:
    """Refuse a window that is no batch: uncut, it would be larger than the training split."""
    if get_effective_batch_size(config) > samples:
        reason = (
            f"uncut, that is one batch of {get_effective_batch_size(config):,}, and the training split has "
            f"{samples:,} samples"
        )
        raise ConfigError(format_window_size_key(config), reason, "choose fewer")


def format_window_size_key(config: DictConfig) -> str:
    """Return what makes a window as large as it is."""
    if config.effective_batch_size is not None:
        return f"effective_batch_size={config.effective_batch_size}"
    return f"batch_size={config.batch_size} accum={config.accum}"


@contextmanager
def memory_errors(config: DictConfig) -> Iterator[None]:
    """Say in one line that the device's memory doesn't hold all trainings, one of them uncut.

    Raises:
        ConfigError: in the place of torch's own error.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        reason = "the device's memory doesn't hold what is compared, one of it uncut"
        raise ConfigError(format_window_size_key(config), reason, "choose fewer") from None
