"""Variants of an experiment for checks, and the errors that several checks share."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from omegaconf import DictConfig, open_dict, read_write
from torch import nn

from microstep.config.experiment import LATER, effective_batch_size, micro_batches
from microstep.config.hydra_job import get_choices
from microstep.errors import ConfigError
from microstep.training.run_info import option_name, unusual_rows
from microstep.types.protocols import Dataset

FP64 = {"_target_": "microstep.components.precision.full", "dtype": "float64"}


def change_config(config: DictConfig, **values: Any) -> DictConfig:
    """Return a copy with other values of some root keys. Interpolations of these keys follow."""
    copy = config.copy()
    with read_write(copy), open_dict(copy):
        for key, value in values.items():
            copy[key] = value
    return copy


def subject_rows(config: DictConfig, dataset: Dataset, model: nn.Module) -> dict[str, str]:
    names = get_choices()
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {
        "data": f"{option_name(config, names, 'dataset')}: {dataset.summary}",
        **unusual_rows(config, names),
        "model": f"{get_model_name(config)}: {parameters:,} parameters",
    }


def get_model_name(config: DictConfig) -> str:
    return str(config.model.get("name") or option_name(config, get_choices(), "model"))


def in_one_process(config: DictConfig) -> DictConfig:
    """Return the experiment with the same micro-batches, planned for one process."""
    return change_config(config, accum=micro_batches(config), strategy=LATER["strategy"])


def check_window_fits(config: DictConfig, samples: int) -> None:
    if (size := effective_batch_size(config)) > samples:
        reason = f"uncut, that is one batch of {size:,}, and an epoch has {samples:,} samples"
        raise ConfigError(format_window_size_key(config), reason, "choose fewer")


def format_window_size_key(config: DictConfig) -> str:
    if config.effective_batch_size is not None:
        return f"effective_batch_size={config.effective_batch_size}"
    return f"batch_size={config.batch_size} accum={config.accum}"


@contextmanager
def memory_errors(config: DictConfig) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        reason = "the device's memory doesn't hold the variants, one of which is the uncut batch"
        raise ConfigError(format_window_size_key(config), reason, "choose fewer") from None
