"""Runs check=drift."""

from omegaconf import DictConfig

from microstep.config.experiment import micro_batch_size
from microstep.diagnostics.drift import report
from microstep.diagnostics.drift.plot import draw_drift_plot
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
    """Train both cuts, another seed and both cuts in fp64 side by side, and measure their distances; always pass."""
    with memory_errors(config):
        trainings = start_trainings(config)
        print_and_log(f"{len(trainings)} trainings of {format_count(config.epochs, 'epoch')} each, side by side\n")
        trajectories = train_together(trainings, config.epochs, ProgressBars(config.progress))
    components = trainings["cut"].components
    result = make_drift_result(config, components, trajectories)
    machine_numbers = {"device": describe_device(components.device), "versions": get_package_versions()}
    numbers, images = result.to_dict() | machine_numbers, {"drift": draw_drift_plot(result)}
    text, verdict = drift_report_text(config, components, result), report.drift_verdict_text(result)
    return CheckResult(text, verdict, numbers, images, result.curves())


def make_drift_result(config: DictConfig, components: Components, trajectories: Trajectories) -> DriftResult:
    micro_batch, accum, seed = micro_batch_size(config), int(config.accum), int(config.seed)
    samples, reasons = len(components.dataset.splits["val"]), find_inexact_layers(components.model)
    return DriftResult(trajectories, components.precision.name, micro_batch, accum, seed, samples, reasons)


def drift_report_text(config: DictConfig, components: Components, result: DriftResult) -> str:
    summary = format_fields(drift_summary_rows(config, components, result))
    heading = f"  after epoch {result.epochs}, on {result.samples:,} validation samples"
    metrics = f"{heading}\n{report.format_metrics_table(result)}"
    return "\n\n".join([summary, report.format_distance_table(result), report.DISTANCE_NOTES, metrics])


def drift_summary_rows(config: DictConfig, components: Components, result: DriftResult) -> dict[str, str]:
    return {
        **subject_rows(config, components.dataset, components.model),
        "precision": f"{components.precision.name} ({components.precision.reason})",
        "device": describe_device(components.device),
        "cuts": f"{result.accum} × {result.micro_batch}, and {result.whole} at once",
        "seeds": f"{result.seed}, and {result.seed + 1} for comparison",
        "steps": f"{components.steps:,} an epoch, {components.steps * result.epochs:,} in {result.epochs} epochs",
    }
