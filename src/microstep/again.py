"""Evaluation of a run that is over, from its directory alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from microstep.build import build_parts
from microstep.checkpoint import Checkpoints
from microstep.dataset.workers import explained
from microstep.errors import CheckpointRefused, ConfigError, DataError
from microstep.evaluation import evaluate_and_report
from microstep.facts import Parts
from microstep.files import read_json
from microstep.gate import Gate
from microstep.logger import Bars, SplitResult
from microstep.run_config import run_config


@dataclass(frozen=True)
class Evaluated:
    """A split's result, and where its report is."""

    result: SplitResult
    directory: Path
    epoch: int  #: that the checkpoint was written after


@explained()
def evaluate_run(run_dir: Path, split: str, checkpoint: str, gate: Gate, device: str | None, bars: Bars) -> Evaluated:
    """Evaluate a split with the run's own model, data and precision; write its report into the run directory.

    Args:
        split: train, val or test.
        checkpoint: best or last.
        gate: says what the run's config may name.
        device: another device than the run's; None for the run's own.

    Raises:
        ConfigError: where it is no run directory, or there is no such split.
        DataError: where the data are no longer those of the run.
        CheckpointRefused: where the checkpoint is missing or damaged, or is not this model's.
    """
    checkpoints = Checkpoints(run_dir / "checkpoints")
    parts = build_parts(run_config(run_dir, gate), gate, device, fresh=False)
    insist_on_same_data(run_dir, parts.dataset.fingerprint)
    if split not in parts.dataset.splits:
        raise ConfigError(f"split={split}", "no such split", f"the options are {', '.join(parts.dataset.splits)}")
    load(parts, checkpoints, checkpoint)
    directory = run_dir / "reports" / (split if checkpoint == "best" else f"{split}-{checkpoint}")
    return Evaluated(report(parts, split, directory, bars), directory, checkpoints.entry(checkpoint)["epoch"])


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


def load(parts: Parts, checkpoints: Checkpoints, which: str) -> None:
    """Load a checkpoint's weights into the model."""
    state = checkpoints.load(which, parts.device)
    try:
        parts.model.load_state_dict(state["model"])
    except (KeyError, RuntimeError, TypeError, AttributeError) as error:
        reason = f"it is not this model's: {str(error).splitlines()[0]}"
        raise CheckpointRefused(str(checkpoints.directory), reason, "check model.* in config.yaml") from None


def report(parts: Parts, name: str, directory: Path, bars: Bars) -> SplitResult:
    """Return the split's result under a bar."""
    split, metrics = parts.dataset.splits[name], parts.task.metrics()
    evaluation = parts.loaders.evaluation(name)
    batches = bars.samples(evaluation, name, len(split), lambda batch: len(batch.indices), metrics.running)
    return SplitResult(
        *evaluate_and_report(parts.model, split, batches, parts.precision, parts.task, metrics, directory)
    )
