"""Evaluates a saved run from its directory."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from torch import nn

from microstep.components.model.metadata import parse_normalization
from microstep.components.model.torchvision_models import load_state
from microstep.config.allowlist import Allowlist
from microstep.config.experiment import WEIGHTS_FILENAME
from microstep.errors import CheckpointRefused, ConfigError
from microstep.evaluation.views import ViewAverage
from microstep.run.checkpoints.checkpoints import Checkpoints
from microstep.run.saved_run import SavedRun
from microstep.run.weights import SavedWeights, read_exported_weights, read_fitted
from microstep.training.builders import build_components
from microstep.training.components import Components
from microstep.training.device import torch_errors
from microstep.training.evaluation_loop import evaluate_and_report
from microstep.types.events import SplitResult
from microstep.utils.progress_bar import ProgressBars

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
) -> EvaluatedRun:
    """Evaluate a split with the model, data and precision of a run, and write the report into its directory.

    Args:
        split: name of a split of the run's dataset. For the other arguments see `load_run`.
        tta: name of the views of each image whose probabilities are averaged (`VIEWS`); None for the image alone.

    Raises:
        ConfigError: if the dataset has no such split; see also `load_run`.
        StorageError: if the report cannot be written.
    """
    directory = get_report_directory(run_dir, split, checkpoint, tta)
    components, epoch = load_run(run_dir, allowlist, device, checkpoint, overrides)
    if tta:
        components = replace(components, model=ViewAverage(components.model, components.task, tta))
    if split not in components.dataset.splits:
        raise ConfigError(f"split={split}", "no such split", f"the options are {', '.join(components.dataset.splits)}")
    return EvaluatedRun(evaluate_split(components, split, directory, bars), directory, epoch)


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
    saved.check_data(components.dataset.fingerprint)
    load_weights(components.model, read())
    if fitted := read_fitted(read(), directory):
        components.task.fitted = fitted  # type: ignore[attr-defined]
    return components, read().epoch


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
        reason = f"it is not this model's: {str(error).splitlines()[0]}"
        raise CheckpointRefused(str(weights.source), reason, "check model.* in config.yaml") from None


def get_report_path(name: str, checkpoint: str, tta: str | None = None) -> Path:
    """Return the path of a report within a run directory."""
    weights, views = "" if checkpoint == "best" else f"-{Path(checkpoint).stem}", f"-tta-{tta}" if tta else ""
    return Path("reports", f"{name}{weights}{views}")


def get_report_directory(run_dir: Path, name: str, checkpoint: str, tta: str | None = None) -> Path:
    directory = run_dir / get_report_path(name, checkpoint, tta)
    if directory.parent.is_symlink() or directory.is_symlink():
        raise ConfigError(str(directory), "a link leads out of the run", "replace it by a copy")
    return directory


def evaluate_split(components: Components, name: str, directory: Path, bars: ProgressBars) -> SplitResult:
    split, metrics = components.dataset.splits[name], components.task.metrics()
    evaluation = components.loaders.evaluation(name)
    batches = bars.samples(evaluation, name, len(split), lambda batch: len(batch.indices), metrics.running_values)
    shared = components.precision, components.task, metrics, directory
    return SplitResult(*evaluate_and_report(components.model, split, batches, *shared))
