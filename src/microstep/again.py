"""Evaluation of a run that is over, from its directory alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from microstep.build import build_parts
from microstep.checkpoint import Checkpoints
from microstep.config import EXPORTED
from microstep.dataset.workers import explained
from microstep.errors import CheckpointRefused, ConfigError, DataError
from microstep.evaluation import evaluate_and_report
from microstep.export import exported
from microstep.files import known_json, read_json
from microstep.gate import Gate
from microstep.logger import Bars, SplitResult
from microstep.parts import Parts
from microstep.run_config import run_config


@dataclass(frozen=True)
class Evaluated:
    """A split's result, and where its report is."""

    result: SplitResult
    directory: Path
    epoch: int  #: that the weights are of


@explained()
def evaluate_run(run_dir: Path, split: str, checkpoint: str, gate: Gate, device: str | None, bars: Bars) -> Evaluated:
    """Evaluate a split with the run's own model, data and precision; write its report into the run directory.

    Args:
        split: train, val or test.
        checkpoint: best, last, or model.safetensors: the best as others get it.
        gate: says what the run's config may name.
        device: another device than the run's; None for the run's own.

    Raises:
        ConfigError: where it is no run directory, or there is no such split.
        DataError: where the data are no longer those of the run.
        CheckpointRefused: where the checkpoint is missing or damaged, or is not this model's.
    """
    parts = build_parts(run_config(run_dir, gate), gate, device, fresh=False, saved_name=computed_in(run_dir))
    insist_on_same_data(run_dir, parts.dataset.fingerprint)
    if split not in parts.dataset.splits:
        raise ConfigError(f"split={split}", "no such split", f"the options are {', '.join(parts.dataset.splits)}")
    epoch = load(parts, run_dir, checkpoint)
    directory = report_directory(run_dir, split, checkpoint)
    return Evaluated(report(parts, split, directory, bars), directory, epoch)


def computed_in(run_dir: Path) -> str | None:
    """Return the name of the precision that a run has computed in; None where run.json doesn't tell."""
    precision = known_json(run_dir / "run.json").get("precision")
    return str(precision["name"]) if isinstance(precision, dict) and "name" in precision else None


def insist_on_same_data(run_dir: Path, fingerprint: str) -> None:
    """Refuse data that are not what the run was trained and tested on."""
    try:
        known = read_json(run_dir / "run.json")["data"]["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(
            f"run={run_dir}", "run.json is missing or damaged, or the run never began", "give a run's own directory"
        ) from None
    if known != fingerprint:
        raise DataError(f"run={run_dir}", "the data have changed since the run", "put back what dataset.root held then")


def load(parts: Parts, run_dir: Path, which: str) -> int:
    """Load weights of the run into the model; return the epoch that they are of."""
    place = run_dir / (EXPORTED if which == EXPORTED else "checkpoints")
    state, epoch = exported(place) if which == EXPORTED else saved(Checkpoints(place), which)
    try:
        parts.model.load_state_dict(state)
    except (KeyError, RuntimeError, TypeError, AttributeError) as error:
        reason = f"it is not this model's: {str(error).splitlines()[0]}"
        raise CheckpointRefused(str(place), reason, "check model.* in config.yaml") from None
    return epoch


def saved(checkpoints: Checkpoints, which: str) -> tuple[Mapping[str, Any], int]:
    """Return the model's state that a checkpoint holds, and the epoch that it was written after."""
    return checkpoints.load(which).get("model", {}), checkpoints.entry(which).epoch


def report_directory(run_dir: Path, name: str, checkpoint: str) -> Path:
    """Return where a report goes: each kind of weights but the best has a directory of its own."""
    return run_dir / "reports" / (name if checkpoint == "best" else f"{name}-{Path(checkpoint).stem}")


def report(parts: Parts, name: str, directory: Path, bars: Bars) -> SplitResult:
    """Return the split's result under a bar."""
    split, metrics = parts.dataset.splits[name], parts.task.metrics()
    evaluation = parts.loaders.evaluation(name)
    batches = bars.samples(evaluation, name, len(split), lambda batch: len(batch.indices), metrics.running)
    return SplitResult(
        *evaluate_and_report(parts.model, split, batches, parts.precision, parts.task, metrics, directory)
    )
