"""Where `accum` changed the effective batch size, what it did is the batch size's doing too."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass

from microstep.names import LONGEST
from microstep.summary.study import Study

REPLACED = ("batch_size", "effective_batch_size", "sweep", "hydra.sweep.dir", "resume")
LARGEST = 10**6  #: an `accum` beyond it is nobody's


@dataclass(frozen=True)
class Confounded:
    """Effective batch sizes that `accum` made, and the command that varies `accum` alone; empty where none is known."""

    sizes: tuple[int, ...]
    command: str


def confounded(study: Study) -> Confounded | None:
    """Return what `accum` has changed besides itself; None where runs that differ in it alone have one batch size."""
    if "accum" not in study.keys:
        return None
    groups: dict[tuple[str, ...], set[int]] = {}
    for run in study.runs:
        if (size := run.number("effective_batch_size")) is not None and size >= 1:
            groups.setdefault(study.others(run, "accum"), set()).add(int(size))
    sizes = sorted({size for group in groups.values() if len(group) > 1 for size in group})
    return Confounded(tuple(sizes), separating(study, sizes[0])) if sizes else None


def separating(study: Study, least: int) -> str:
    """Return the sweep's command with one effective batch size: the least that every `accum` divides."""
    values = [int(level) for level in study.levels("accum") if level.isdecimal() and 0 < int(level) <= LARGEST]
    try:
        words = shlex.split(study.sweep.command)
    except ValueError:
        return ""
    if len(values) < len(study.levels("accum")) or not words:
        return ""
    multiple = math.lcm(*values)
    size, name = -(-least // multiple) * multiple, f"{study.sweep.name[: LONGEST - 11]}_same_batch"
    kept = [word for word in words if word.lstrip("+").partition("=")[0] not in REPLACED]
    return shlex.join([*kept, f"effective_batch_size={size}", f"sweep={name}"])
