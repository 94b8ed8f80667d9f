"""The examination from end to end."""

from __future__ import annotations

from omegaconf import DictConfig

from microstep.config.experiment import micro_batch_size
from microstep.diagnostics.drift.plot import drift_picture
from microstep.diagnostics.drift.report import NOTES, course_table, metrics_table, sentence
from microstep.diagnostics.drift.trajectories import Course, Drift, follow, trainings_of
from microstep.diagnostics.result import Finding
from microstep.diagnostics.variants import fitting, subject
from microstep.training import device as machine
from microstep.training.components import Parts
from microstep.training.provenance import versions
from microstep.training.run_info import inexact_layers
from microstep.utils.progress_bar import Bars
from microstep.utils.tables import format_fields
from microstep.utils.terminal import say
from microstep.utils.text import format_count


def look(config: DictConfig) -> Finding:
    """Train both cuts, another seed and both cuts in fp64 side by side, and say how far they end apart.

    A report: it passes whatever it finds.

    Raises:
        ConfigError: for what a training would refuse, or where the uncut batch can't be.
        Diverged: the loss or its gradient is no longer finite in one of the trainings.
    """
    with fitting(config):
        trainings = trainings_of(config)
        say(f"{len(trainings)} trainings of {format_count(config.epochs, 'epoch')} each, side by side\n")
        course = follow(trainings, config.epochs, Bars(config.progress))
    parts = trainings["cut"].parts
    drift = drifted(config, parts, course)
    numbers = drift.numbers() | {"device": machine.describe(parts.device), "versions": versions()}
    pictures = {"drift": drift_picture(drift)}
    return Finding(page(config, parts, drift), sentence(drift), numbers, pictures, drift.curves())


def drifted(config: DictConfig, parts: Parts, course: Course) -> Drift:
    """Return what was found; `parts` are those of the typed experiment."""
    return Drift(
        course,
        precision=parts.precision.name,
        micro_batch=micro_batch_size(config),
        accum=int(config.accum),
        seed=int(config.seed),
        samples=len(parts.dataset.splits["val"]),
        inexact=inexact_layers(parts.model),
    )


def page(config: DictConfig, parts: Parts, drift: Drift) -> str:
    """Return what was trained, the distances by epoch, the metrics at the end."""
    end = f"  after epoch {drift.epochs}, on {drift.samples:,} validation samples"
    said = format_fields(summary(config, parts, drift))
    return "\n\n".join([said, course_table(drift), NOTES, f"{end}\n{metrics_table(drift)}"])


def summary(config: DictConfig, parts: Parts, drift: Drift) -> dict[str, str]:
    """Return what was trained."""
    return {
        **subject(config, parts.dataset, parts.model),
        "precision": f"{parts.precision.name} ({parts.precision.reason})",
        "device": machine.describe(parts.device),
        "cuts": f"{drift.accum} × {drift.micro_batch}, and {drift.whole} at once",
        "seeds": f"{drift.seed}, and {drift.seed + 1} for comparison",
        "steps": f"{parts.steps:,} an epoch, {parts.steps * drift.epochs:,} in {drift.epochs} epochs",
    }
