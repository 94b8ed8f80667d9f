"""Runs check=precision and formats its table."""

from omegaconf import DictConfig

from microstep.components.precision.presets import available_precisions
from microstep.diagnostics.precision.plot import draw_precision_plot
from microstep.diagnostics.result import CheckResult
from microstep.diagnostics.variants import subject_rows
from microstep.training.builders import build_partial_components
from microstep.training.device import describe_device
from microstep.training.profiling.gradients import PrecisionAccuracy
from microstep.training.profiling.profile import Measurement, Profile, profile_precisions
from microstep.training.profiling.recommendation import format_percent, recommend, store_recommendation
from microstep.training.provenance import recommendation_key
from microstep.training.run_info import format_batch_size
from microstep.utils.tables import format_fields, format_table
from microstep.utils.terminal import print_and_log
from microstep.utils.text import format_count


def run_precision_check(config: DictConfig) -> CheckResult:
    """Measure the time, memory and error of a step in each precision, and recommend one for `precision=auto`."""
    components = build_partial_components(config)
    names = available_precisions(components.device)
    print_and_log(f"measuring {', '.join(names)} …")
    profile = profile_precisions(components, names)
    best = recommend(profile)
    store_recommendation(recommendation_key(config, components.device, components.dataset.fingerprint), best)
    rows = subject_rows(config, components.dataset, components.model)
    rows |= {"device": describe_device(components.device), "batch": format_batch_size(config)}
    advice = f"Type precision={best.name}, or precision=auto, which takes it from now on."
    return CheckResult(
        f"{format_fields(rows)}\n\n{format_precision_table(profile)}",
        f"{best.name}: {best.reason}.\n{advice}",
        {"recommendation": vars(best), **profile.plain()},
        {"precision": draw_precision_plot(profile)},
        precision_curves(profile),
    )


def precision_curves(profile: Profile) -> dict[str, list[float]]:
    curves: dict[str, list[float]] = {}
    for name, one in profile.measured.items():
        curves[f"check/{name}/step_seconds"] = [one.seconds]
        curves[f"check/{name}/gradient_drift"] = [one.accuracy.gradient_drift]
        curves[f"check/{name}/peak_bytes"] = [float(one.peak_bytes)]
    return curves


TABLE_HEADINGS = (
    ("", "a step", "samples/s", "speed-up", "memory", "loss", "gradient", "overflow", "underflow"),
    ("", "", "", "", "at peak", "off by", "off by", "", ""),
)


def format_precision_table(profile: Profile) -> str:
    """Return a row for each precision, with failed ones last, and notes on the columns."""
    rows = [format_precision_row(profile, name, one) for name, one in profile.measured.items()]
    lines = format_table([*TABLE_HEADINGS, *rows], "<>")
    lines += [f"  {name:<6}  {why}" for name, why in profile.failed.items()]
    noise = f"  gradient noise {format_percent(profile.noise)}: distance between two windows' gradients in fp64"
    return "\n".join([*lines, "", noise, *format_scaler_notes(profile)])


def format_precision_row(profile: Profile, name: str, measurement: Measurement) -> tuple[str, ...]:
    accuracy, speed_up = measurement.accuracy, profile.speed_up(name)
    return (
        name,
        format_step_time(measurement.seconds),
        f"{profile.samples / measurement.seconds:,.0f}",
        f"{speed_up:.2f} ×" if speed_up else "–",
        f"{measurement.peak_bytes / 2**20:,.1f} MiB",
        *map(format_percent, (accuracy.loss_drift, accuracy.gradient_drift, accuracy.overflow, accuracy.underflow)),
    )


def format_scaler_notes(profile: Profile) -> list[str]:
    accuracies = {name: one.accuracy for name, one in profile.measured.items()}
    return [
        f"  {name}: {format_scale(one)}; without a scaler {format_percent(one.unscaled_underflow)} would underflow"
        for name, one in accuracies.items()
        if one.unscaled_underflow is not None
    ]


def format_scale(accuracy: PrecisionAccuracy) -> str:
    halved = f", halved {format_count(accuracy.skipped, 'time')}" if accuracy.skipped else ""
    return f"its scale settled at {accuracy.scale:,.0f}{halved}" if accuracy.settled else "it overflows at any scale"


def format_step_time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
