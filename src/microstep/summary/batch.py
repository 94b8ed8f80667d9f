"""Detect that `accum` changed the effective batch size as well, and find a sweep that varies `accum` alone."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass

from microstep.config.names import LONGEST
from microstep.summary.study import SweepTable

REPLACED = ("batch_size", "effective_batch_size", "sweep", "hydra.sweep.dir", "resume")
LARGEST = 10**6  #: no command is made for a larger `accum`


@dataclass(frozen=True)
class Confounded:
    """Effective batch sizes that `accum` made, and the command that varies `accum` alone; empty if none is known."""

    sizes: tuple[int, ...]
    command: str


def confounded(sweep: SweepTable) -> Confounded | None:
    """Return the batch sizes of runs that differ in `accum` alone; None if they have the same."""
    if "accum" not in sweep.keys:
        return None
    groups: dict[tuple[str, ...], set[int]] = {}
    for run in sweep.runs:
        if (size := run.number("effective_batch_size")) is not None and size >= 1:
            groups.setdefault(sweep.others(run, "accum"), set()).add(int(size))
    sizes = sorted({size for group in groups.values() if len(group) > 1 for size in group})
    return Confounded(tuple(sizes), separating_command(sweep, sizes[0])) if sizes else None


def separating_command(sweep: SweepTable, least: int) -> str:
    """Return the sweep's command with one effective batch size: the least from `least` on that each `accum` divides."""
    levels = sweep.levels("accum")
    values = [int(level) for level in levels if level.isdecimal() and 0 < int(level) <= LARGEST]
    try:
        words = shlex.split(sweep.command)
    except ValueError:
        return ""
    if len(values) < len(levels) or not words:
        return ""
    multiple = math.lcm(*values)
    size, name = -(-least // multiple) * multiple, f"{sweep.name[: LONGEST - 11]}_same_batch"
    kept = [word for word in words if word.lstrip("+").partition("=")[0] not in REPLACED]
    return shlex.join([*kept, f"effective_batch_size={size}", f"sweep={name}"])
