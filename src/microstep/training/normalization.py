"""Chooses the normalization of a run: typed values, then those of the pretrained weights, then the data set's."""

import logging
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig
from torch import nn

from microstep.components.dataset import ImageDataset
from microstep.components.model.metadata import MeanAndStd
from microstep.config.allowlist import read_yaml
from microstep.config.search_path import CONF
from microstep.config.targets import current
from microstep.types.protocols import Dataset

log = logging.getLogger("microstep.notice")
UNKNOWN = (
    "model.weights=%s: the file doesn't say which mean and standard deviation it was trained with, so those of the "
    "data set are used; type dataset.mean and dataset.std if you know them"
)


def choose_normalization(config: DictConfig, model: nn.Module, dataset: Dataset, initial: MeanAndStd | None) -> Dataset:
    """Return the data set with the typed normalization or that of the model's pretrained weights, if it has any.

    `initial` is that of `init`, if it has as many channels. A warning says that the normalization is not known.
    """
    is_usable = initial is not None and len(initial[0]) == next(iter(dataset.facts.get("input_shape", ())), 0)
    own = initial if is_usable else find_normalization(model)
    weights = config.model.get("weights") if hasattr(model, "normalization") else None
    if not isinstance(dataset, ImageDataset) or (own is None and weights is None):
        return dataset
    typed = [config.dataset.get(key) for key in ("mean", "std")] if is_typed(config.dataset) else [None, None]
    mean, std = (own if value is None else value for value, own in zip(typed, own or (None, None), strict=True))
    if mean is None or std is None:
        log.warning(UNKNOWN, weights)
        return dataset
    origins = dict.fromkeys("the weights' own" if value is None else "given" for value in typed)
    return dataset.with_normalization(mean, std, ", and ".join(origins))


def find_normalization(model: nn.Module) -> MeanAndStd | None:
    """Return the attribute `normalization` of a model, called `normalisation` up to 0.1.0; None if it has none."""
    return getattr(model, "normalization", getattr(model, "normalisation", None))


def is_typed(dataset: Mapping[Any, Any]) -> bool:
    """Return whether a config gives mean or standard deviation. Those that microstep's own yamls hold don't count."""

    def given(node: Mapping[Any, Any]) -> list[Any]:
        return [current(str(node["_target_"])), node.get("mean"), node.get("std")]

    shipped = [given(read_yaml(file)) for file in (CONF / "dataset").glob("*.yaml")]
    return given(dataset)[1:] != [None, None] and given(dataset) not in shipped
