"""Runs check=drift."""

from omegaconf import DictConfig

from microstep.config.experiment import micro_batch_size
from microstep.diagnostics.drift.plot import draw_drift_plot
from microstep.diagnostics.drift.report import (
    DISTANCE_NOTES,
    drift_verdict_text,
    format_distance_table,
    format_metrics_table,
)
from microstep.diagnostics.drift.trajectories import DriftResult, Trajectories, start_trainings, train_together
from microstep.diagnostics.result import CheckResult
from microstep.diagnostics.variants import memory_errors, subject_rows
from microstep.training.components import Components
from microstep.training.device import describe_device
from microstep.training.provenance import get_package_versions
from microstep.training.run_info import find_inexact_layers
from microstep.utils.progress_bar import ProgressBars
from microstep.utils.tables import format_fields
from microstep.utils.terminal import print_and_log
from microstep.utils.text import format_count


def run_drift_check(config: DictConfig) -> CheckResult:
    """Train both cuts, another seed and both cuts in fp64 side by side, and measure their distances.

    Returns:
        The report. It passes with any distances.

    Raises:
        ConfigError: training would refuse the config, or the uncut batch is too large.
        Diverged: a loss or its gradient is no longer finite.
    """
    with memory_errors(config):
        trainings = start_trainings(config)
        print_and_log(f"{len(trainings)} trainings of {format_count(config.epochs, 'epoch')} each, side by side\n")
        trajectories = train_together(trainings, config.epochs, ProgressBars(config.progress))
    components = trainings["cut"].components
    result = make_drift_result(config, components, trajectories)
    machine_numbers = {"device": describe_device(components.device), "versions": get_package_versions()}
    return CheckResult(
        drift_report_text(config, components, result),
        drift_verdict_text(result),
        result.to_dict() | machine_numbers,
        {"drift": draw_drift_plot(result)},
        result.curves(),
    )


def make_drift_result(config: DictConfig, components: Components, trajectories: Trajectories) -> DriftResult:
    return DriftResult(
        trajectories,
        precision=components.precision.name,
        micro_batch=micro_batch_size(config),
        accum=int(config.accum),
        seed=int(config.seed),
        samples=len(components.dataset.splits["val"]),
        inexact_reasons=find_inexact_layers(components.model),
    )


def drift_report_text(config: DictConfig, components: Components, result: DriftResult) -> str:
    summary = format_fields(drift_summary_rows(config, components, result))
    metrics = f"  after epoch {result.epochs}, on {result.samples:,} validation samples\n{format_metrics_table(result)}"
    return "\n\n".join([summary, format_distance_table(result), DISTANCE_NOTES, metrics])


def drift_summary_rows(config: DictConfig, components: Components, result: DriftResult) -> dict[str, str]:
    return {
        **subject_rows(config, components.dataset, components.model),
        "precision": f"{components.precision.name} ({components.precision.reason})",
        "device": describe_device(components.device),
        "cuts": f"{result.accum} × {result.micro_batch}, and {result.whole} at once",
        "seeds": f"{result.seed}, and {result.seed + 1} for comparison",
        "steps": f"{components.steps:,} an epoch, {components.steps * result.epochs:,} in {result.epochs} epochs",
    }
