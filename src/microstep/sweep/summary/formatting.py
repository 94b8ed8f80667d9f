"""Format numbers for the tables and sentences of a summary."""

from __future__ import annotations

from microstep.sweep.summary.study import Sample

NONE = "–"  #: stands for a number that is missing


def figure(value: float | None) -> str:
    """Return a number with four decimals, one if it is large, three digits if it is tiny or huge."""
    if value is None:
        return NONE
    size = abs(value)
    if size >= 1e7 or 0 < size < 5e-5:
        return f"{value:.2e}"
    return f"{value:.4f}" if size < 100 else f"{value:,.1f}"


def signed(value: float) -> str:
    """Return a difference with its sign; the minus is U+2212."""
    return f"+{figure(value)}" if value >= 0 else f"−{figure(-value)}"


def spread(sample: Sample | None, number: str | None = None) -> str:
    """Return mean ± standard deviation, or the mean alone if there is one number.

    Args:
        sample: the numbers.
        number: the mean as a text, if it is to be formatted in another way.
    """
    if sample is None:
        return NONE
    mean = number or figure(sample.mean)
    return mean if sample.deviation is None else f"{mean} ± {figure(sample.deviation)}"


def whole(value: float | None) -> str:
    """Return a number without decimals, or with one if it is below 100."""
    return NONE if value is None else f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.1f}"


def size(value: float | None) -> str:
    """Return a number of bytes in MiB or GiB."""
    if value is None:
        return NONE
    return f"{value / 2**30:,.2f} GiB" if value >= 2**30 else f"{value / 2**20:,.0f} MiB"


def counted(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"
