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
from microstep.training.components import Components
from microstep.training.provenance import get_package_versions
from microstep.training.run_info import find_inexact_layers
from microstep.utils.progress_bar import ProgressBars
from microstep.utils.tables import format_fields
from microstep.utils.terminal import print_and_log
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
        print_and_log(f"{len(trainings)} trainings of {format_count(config.epochs, 'epoch')} each, side by side\n")
        course = follow(trainings, config.epochs, ProgressBars(config.progress))
    parts = trainings["cut"].parts
    drift = drifted(config, parts, course)
    numbers = drift.numbers() | {"device": machine.describe_device(parts.device), "versions": get_package_versions()}
    pictures = {"drift": drift_picture(drift)}
    return Finding(page(config, parts, drift), sentence(drift), numbers, pictures, drift.curves())


def drifted(config: DictConfig, components: Components, trajectories: Course) -> Drift:
    """Return what was found; `components` are those of the typed experiment."""
    return Drift(
        trajectories,
        precision=components.precision.name,
        micro_batch=micro_batch_size(config),
        accum=int(config.accum),
        seed=int(config.seed),
        samples=len(components.dataset.splits["val"]),
        inexact=find_inexact_layers(components.model),
    )


def page(config: DictConfig, components: Components, result: Drift) -> str:
    """Return what was trained, the distances by epoch, the metrics at the end."""
    end = f"  after epoch {result.epochs}, on {result.samples:,} validation samples"
    said = format_fields(summary(config, components, result))
    return "\n\n".join([said, course_table(result), NOTES, f"{end}\n{metrics_table(result)}"])


def summary(config: DictConfig, components: Components, result: Drift) -> dict[str, str]:
    """Return what was trained."""
    return {
        **subject(config, components.dataset, components.model),
        "precision": f"{components.precision.name} ({components.precision.reason})",
        "device": machine.describe_device(components.device),
        "cuts": f"{result.accum} × {result.micro_batch}, and {result.whole} at once",
        "seeds": f"{result.seed}, and {result.seed + 1} for comparison",
        "steps": f"{components.steps:,} an epoch, {components.steps * result.epochs:,} in {result.epochs} epochs",
    }
