"""Runs check=precision and formats its table."""

from __future__ import annotations

from omegaconf import DictConfig

from microstep.components.precision.presets import available_precisions
from microstep.diagnostics.precision.plot import draw_precision_plot
from microstep.diagnostics.result import CheckResult
from microstep.diagnostics.variants import subject_rows
from microstep.training import device as machine
from microstep.training.builders import build_partial_components
from microstep.training.components import PartialComponents
from microstep.training.profiling.profile import Measurement, Profile, profile_precisions
from microstep.training.profiling.recommendation import format_percent, recommendation, store_recommendation
from microstep.training.provenance import recommendation_key
from microstep.training.run_info import format_batch_size
from microstep.utils.tables import format_fields, format_table
from microstep.utils.terminal import print_and_log
from microstep.utils.text import format_count


def run_precision_check(config: DictConfig) -> CheckResult:
    """Measure what an experiment's step costs and loses in each precision; recommend one, which `precision=auto` takes.

    Raises:
        MicrostepError: for what training would refuse, and where fp64 can't be computed.
    """
    trial = build_partial_components(config)
    names = available_precisions(trial.device)
    print_and_log(f"measuring {', '.join(names)} …")
    profile = profile_precisions(trial, names)
    found = recommendation(profile)
    store_recommendation(recommendation_key(config, trial.device), found)
    page = f"{format_fields(precision_summary_rows(config, trial))}\n\n{format_precision_table(profile)}"
    numbers = {"recommendation": vars(found), **profile.plain()}
    typed = f"Type precision={found.name}, or precision=auto, which takes it from now on."
    sentence = f"{found.name}: {found.reason}.\n{typed}"
    return CheckResult(page, sentence, numbers, {"precision": draw_precision_plot(profile)}, precision_curves(profile))


def precision_summary_rows(config: DictConfig, components: PartialComponents) -> dict[str, str]:
    """Return what was measured, by name."""
    return {
        **subject_rows(config, components.dataset, components.model),
        "device": machine.describe_device(components.device),
        "batch": format_batch_size(config),
    }


def precision_curves(profile: Profile) -> dict[str, list[float]]:
    """Return the figures that TensorBoard shows."""
    figures: dict[str, list[float]] = {}
    for name, one in profile.measured.items():
        figures[f"check/{name}/step_seconds"] = [one.seconds]
        figures[f"check/{name}/gradient_drift"] = [one.accuracy.gradient_drift]
        figures[f"check/{name}/peak_bytes"] = [float(one.peak_bytes)]
    return figures


TABLE_HEADINGS = (
    ("", "a step", "samples/s", "speed-up", "memory", "loss", "gradient", "overflow", "underflow"),
    ("", "", "", "", "at peak", "off by", "off by", "", ""),
)


def format_precision_table(profile: Profile) -> str:
    """Return a row for each precision, those that failed last, and the notes that the columns need."""
    rows = [format_precision_row(profile, name, one) for name, one in profile.measured.items()]
    lines = format_table([*TABLE_HEADINGS, *rows], "<>")
    lines += [f"  {name:<6}  {why}" for name, why in profile.failed.items()]
    noise = (
        f"  gradient noise {format_percent(profile.noise)}: how far the next window's gradient is from this "
        f"one's, in fp64"
    )
    return "\n".join([*lines, "", noise, *format_scaler_notes(profile)])


def format_precision_row(profile: Profile, name: str, measurement: Measurement) -> tuple[str, ...]:
    found, times = measurement.accuracy, profile.speed_up(name)
    return (
        name,
        format_step_time(measurement.seconds),
        f"{profile.samples / measurement.seconds:,.0f}",
        f"{times:.2f} ×" if times else "–",
        f"{measurement.peak_bytes / 2**20:,.1f} MiB",
        format_percent(found.loss_drift),
        format_percent(found.gradient_drift),
        format_percent(found.overflow),
        format_percent(found.underflow),
    )


def format_scaler_notes(profile: Profile) -> list[str]:
    """Return what is said of scalers: where they settled, and what they were needed for."""
    said = []
    for name, one in profile.measured.items():
        found = one.accuracy
        if found.unscaled_underflow is None:
            continue
        halved = f", halved {format_count(found.skipped, 'time')}" if found.skipped else ""
        scale_text = (
            f"its scale settled at {found.scale:,.0f}{halved}" if found.settled else "it overflows at any scale"
        )
        said.append(
            f"  {name}: {scale_text}; without a scaler {format_percent(found.unscaled_underflow)} would underflow"
        )
    return said


def format_step_time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
