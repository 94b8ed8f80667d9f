"""Evaluates a saved run from its directory."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from torch import nn

from microstep.components.accumulation import Auto
from microstep.components.dataset import ImageDataset, ImageSource
from microstep.components.dataset.images import Targets
from microstep.components.model.metadata import parse_normalization
from microstep.components.model.torchvision_models import load_state
from microstep.config.allowlist import Allowlist
from microstep.config.experiment import WEIGHTS_FILENAME
from microstep.errors import CheckpointRefused, ConfigError
from microstep.evaluation.views import ViewAverage
from microstep.run.checkpoints.checkpoints import Checkpoints
from microstep.run.layout import get_report_path
from microstep.run.saved_run import SavedRun
from microstep.run.weights import SavedWeights, first_line, read_exported_weights, read_fitted
from microstep.training.builders import build_components, build_dataset
from microstep.training.components import Components
from microstep.training.device import torch_errors
from microstep.training.evaluation_loop import evaluate_and_report
from microstep.types.data import Split
from microstep.types.events import SplitResult
from microstep.utils.progress_bar import ProgressBars
from microstep.utils.text import format_names

Overrides = Mapping[str, Any]  #: values to use instead of a run's own, by dotted key


@dataclass(frozen=True)
class EvaluatedRun:
    """Metrics and report of one split of a saved run."""

    result: SplitResult
    directory: Path  #: directory of the report
    epoch: int  #: epoch of the checkpoint


@torch_errors()
def evaluate_run(
    run_dir: Path,
    split: str,
    checkpoint: str,
    allowlist: Allowlist,
    device: str | None,
    bars: ProgressBars,
    overrides: Overrides | None = None,
    tta: str | None = None,
    other: tuple[str, DictConfig] | None = None,
) -> EvaluatedRun:
    """Evaluate a split with the model, data and precision of a run, and write the report into its directory.

    Args:
        split: name of a split of the run's dataset. For the other arguments see `load_run`.
        tta: name of the views of each image whose probabilities are averaged (`VIEWS`); None for the image alone.
        other: a name, and a config whose `dataset` is evaluated instead of the run's: its images of that split, or all
            if they are not divided. The report's name is then that, too.

    Raises:
        ConfigError: if the dataset has no such split, or a class that the run does not know; see also `load_run`.
        StorageError: if the report cannot be written.
    """
    directory = get_report_directory(run_dir, split if other is None else other[0], checkpoint, tta)
    components, epoch = load_run(run_dir, allowlist, device, checkpoint, overrides)
    if tta:
        components = replace(components, model=ViewAverage(components.model, components.task, tta))
    if other is not None:
        splits = {split: load_other_split(components, split, other[1])}
        loaders = replace(components.loaders, splits={**components.loaders.splits, **splits})
        components = replace(components, loaders=loaders)
    elif split not in components.dataset.splits:
        raise missing_split_error(split, components.dataset.splits)
    return EvaluatedRun(evaluate_split(components, split, directory, bars), directory, epoch)


def missing_split_error(split: str, options: Iterable[str]) -> ConfigError:
    return ConfigError(f"split={split}", "no such split", f"the options are {', '.join(options)}")


def load_run(
    directory: Path, allowlist: Allowlist, device: str | None, checkpoint: str, overrides: Overrides | None = None
) -> tuple[Components, int]:
    """Build the components of a saved run and load the weights of a checkpoint.

    Args:
        allowlist: names that the config of the run may use.
        device: device to use instead of the run's.
        checkpoint: best, last or model.safetensors.
        overrides: further values to use instead of the run's, of keys that a resume may change.

    Returns:
        The components, and the epoch of the checkpoint.

    Raises:
        ConfigError: if the directory holds no run, or its config is not valid.
        DataError: if the data have changed since the run.
        CheckpointRefused: if the checkpoint is missing, damaged or of another model.
    """
    saved = SavedRun.read(directory, overrides=overrides)
    config, read = saved.config(allowlist), cache(partial(read_weights, directory, checkpoint))
    name, normalization = saved.record.precision, None
    with suppress(CheckpointRefused):  # it is raised below, after what the config names has been checked
        normalization = parse_normalization(read().metadata)
    components = build_components(config, allowlist, device, False, saved_name=name, normalization=normalization)
    size = saved.record.numbers.get("micro_batch_size")
    if isinstance(components.accumulation, Auto) and size in components.accumulation.sizes:
        components.accumulation.load_state_dict({"batch_size": size})
    saved.check_data(components.dataset.fingerprint)
    load_weights(components.model, read())
    if fitted := read_fitted(read(), directory):
        components.task.fitted = fitted  # type: ignore[attr-defined]
    return components, read().epoch


def load_other_split(components: Components, name: str, config: DictConfig) -> Split:
    """Return a split of other images, read and normalized as a run reads its own, with the run's classes."""
    run, other = components.dataset, build_dataset(config, components.device, num_workers=config.num_workers)
    if not (isinstance(run, ImageDataset) and isinstance(other, ImageDataset)):
        raise ConfigError(f"dataset={config.dataset._target_}", "not both data sets are of images", "leave it out")
    official, train = other.official_splits, run.image_sources["train"]
    if len(official) > 1 and name not in official:
        raise missing_split_error(name, official)
    source: Any = official.get(name, next(iter(official.values())))
    decoding = {"decoder": run.file_decoder, "cache": None} if run.file_decoder and not source.in_memory else {}
    source = replace(source, labels=match_classes(source, train), class_names=train.class_names, **decoding)
    if source.shape != train.shape:
        raise ConfigError(f"dataset={config.dataset._target_}", f"its images are {source.shape}", f"give {train.shape}")
    read = replace(other, official_splits={"train": source}, make_splits=dict, resident=source.in_memory)
    normalization = run.normalization
    return read.with_normalization(normalization.mean, normalization.std, normalization.origin).make_split("train")


def match_classes(source: ImageSource, train: ImageSource) -> Targets:
    """Return targets with the numbers or columns of a run's classes. Raise ConfigError if the run can't know them."""
    labels, known = source.labels, train.class_names
    if unknown := [name for name in source.class_names if name not in known]:
        raise ConfigError("dataset", f"the run knows no class {unknown[0]}", f"its classes are {format_names(known)}")
    if (labels.dtype, labels.ndim) != (train.labels.dtype, train.labels.ndim):
        raise ConfigError("dataset", "its targets are not of the run's kind", "give classes, labels or numbers alike")
    places = np.array([known.index(name) for name in source.class_names], dtype=np.int64)
    if labels.ndim == 1:
        return places[labels] if labels.dtype == np.int64 else labels
    is_labels = np.isin(np.nan_to_num(train.labels), (0, 1)).all()
    matched = np.full((len(labels), len(known)), 0 if is_labels else np.nan, dtype=labels.dtype)
    matched[:, places] = labels
    return matched


def read_weights(run_dir: Path, checkpoint: str) -> SavedWeights:
    if checkpoint == WEIGHTS_FILENAME:
        return read_exported_weights(run_dir / WEIGHTS_FILENAME)
    checkpoints = Checkpoints(run_dir / "checkpoints")
    state, epoch = checkpoints.load(checkpoint), checkpoints.entry(checkpoint).epoch
    return SavedWeights(checkpoints.directory, state.get("model", {}), epoch, state.get("metadata", {}))


def load_weights(model: nn.Module, weights: SavedWeights) -> None:
    try:
        load_state(model, weights.state)
    except (KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        reason = f"it is not this model's: {first_line(error)}"
        raise CheckpointRefused(str(weights.source), reason, "check model.* in config.yaml") from None


def get_report_directory(run_dir: Path, name: str, checkpoint: str, tta: str | None = None) -> Path:
    return refuse_link(run_dir / get_report_path(name, checkpoint, tta))


def refuse_link(directory: Path) -> Path:
    if directory.parent.is_symlink() or directory.is_symlink():
        raise ConfigError(str(directory), "a link leads out of the run", "replace it by a copy")
    return directory


def evaluate_split(components: Components, name: str, directory: Path, bars: ProgressBars) -> SplitResult:
    split, metrics = components.loaders.splits[name], components.task.metrics()
    evaluation = components.loaders.evaluation(name)
    batches = bars.samples(evaluation, name, len(split), lambda batch: len(batch.indices), metrics.running_values)
    return evaluate_and_report(components, name, batches, metrics, directory)
