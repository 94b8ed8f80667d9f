"""The table of check=precision."""

from __future__ import annotations

from microstep.training.profiling.profile import Measurement, Profile
from microstep.training.profiling.recommendation import percent
from microstep.utils.tables import format_table
from microstep.utils.text import format_count

HEADS = (
    ("", "a step", "samples/s", "speed-up", "memory", "loss", "gradient", "overflow", "underflow"),
    ("", "", "", "", "at peak", "off by", "off by", "", ""),
)


def precision_table(profile: Profile) -> str:
    """Return a row for each precision, those that failed last, and the notes that the columns need."""
    rows = [row(profile, name, one) for name, one in profile.measured.items()]
    lines = format_table([*HEADS, *rows], "<>")
    lines += [f"  {name:<6}  {why}" for name, why in profile.failed.items()]
    noise = f"  gradient noise {percent(profile.noise)}: how far the next window's gradient is from this one's, in fp64"
    return "\n".join([*lines, "", noise, *notes(profile)])


def row(profile: Profile, name: str, one: Measurement) -> tuple[str, ...]:
    found, times = one.accuracy, profile.speed_up(name)
    return (
        name,
        duration(one.seconds),
        f"{profile.samples / one.seconds:,.0f}",
        f"{times:.2f} ×" if times else "–",
        f"{one.peak_bytes / 2**20:,.1f} MiB",
        percent(found.loss_drift),
        percent(found.gradient_drift),
        percent(found.overflow),
        percent(found.underflow),
    )


def notes(profile: Profile) -> list[str]:
    """Return what is said of scalers: where they settled, and what they were needed for."""
    said = []
    for name, one in profile.measured.items():
        found = one.accuracy
        if found.unscaled_underflow is None:
            continue
        halved = f", halved {format_count(found.skipped, 'time')}" if found.skipped else ""
        place = f"its scale settled at {found.scale:,.0f}{halved}" if found.settled else "it overflows at any scale"
        said.append(f"  {name}: {place}; without a scaler {percent(found.unscaled_underflow)} would underflow")
    return said


def duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
