"""Text for people: paths, names of a limited length, counts, durations."""

from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig

from microstep.errors import escape_unprintable, truncate

MAX_NAMES_LENGTH = 300  #: of a list of names in a message


def display_path(path: Path) -> str:
    """Return a path relative to the directory of the command line if it lies below it, else the absolute path."""
    absolute = path.resolve()
    here = Path(HydraConfig.get().runtime.cwd) if HydraConfig.initialized() else Path.cwd()  # hydra.job.chdir moves it
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(absolute)


def truncate_middle(text: str, length: int) -> str:
    """Return text of at most `length` characters; the middle is left out, because file names differ at the end."""
    text = escape_unprintable(text)
    half = (length - 1) // 2
    return text if len(text) <= length else f"{text[:half]}…{text[len(text) - half :]}"


def format_names(names: Sequence[str]) -> str:
    return truncate(", ".join(map(escape_unprintable, names)), MAX_NAMES_LENGTH)


def sample_caption(file: str | None, index: int, length: int) -> str:
    """Return the end of a caption: the sample's file on a new line, or its index if it has none."""
    return f", #{index}" if file is None else f"\n{truncate_middle(Path(file).name, length)}"


def format_count(count: int, noun: str) -> str:
    """Return a count with its noun: `1 epoch`, `1,203 epochs`."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def format_percent(ratio: float) -> str:
    return f"{100 * ratio:.1f} %"


def format_duration(seconds: float) -> str:
    """Return a time in a suitable unit: `8.3 s`, `75 s`, `12 min`, `3 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
