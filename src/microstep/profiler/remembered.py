"""Recommendations that are kept, so that what a run computes in doesn't change with how busy the machine just is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from microstep.components.precision.presets import candidates
from microstep.profiler.profile import profiled
from microstep.profiler.recommendation import Recommendation, recommendation
from microstep.profiler.trial import Trial
from microstep.utils.json_files import recalled, remember
from microstep.utils.terminal import say

Key = Mapping[str, Any]  #: all that a recommendation depends on


def recommended(trial: Trial, key: Key) -> tuple[str, str]:
    """Return the precision that is recommended for an experiment, and why: as remembered, else measured and remembered.

    Where another process has remembered one meanwhile, it is that one.
    """
    known = recall(key, candidates(trial.device))
    if known is None:
        say("precision=auto: nothing is remembered for this machine, model and batch; measuring …")
        found = recommendation(profiled(trial, contenders(trial)))
        known = recall(key, candidates(trial.device)) or found
        keep(key, known)
    return known.name, known.reason


def contenders(trial: Trial) -> tuple[str, ...]:
    """Return what may be recommended: never fp16 on a CPU, which is tens of times slower than anything else there."""
    return tuple(name for name in candidates(trial.device) if name != "fp16" or trial.device.type == "cuda")


def recall(key: Key, names: tuple[str, ...]) -> Recommendation | None:
    """Return what was remembered, where it is whole and possible."""
    known = recalled(place(key))
    name, reason = known.get("name"), known.get("reason")
    return Recommendation(name, reason) if name in names and isinstance(reason, str) else None


def keep(key: Key, found: Recommendation) -> None:
    """Remember a recommendation, where anything can be written."""
    remember(place(key), {"name": found.name, "reason": found.reason, "of": dict(key)})


def place(key: Key) -> str:
    """Return the file's name in the cache."""
    described = json.dumps(key, sort_keys=True, default=str)
    return f"precision/{sha256(described.encode()).hexdigest()}.json"
