"""Recommends a precision from its measured cost and error, and caches the recommendation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from math import isfinite
from typing import Any

from microstep.components.precision.presets import available_precisions
from microstep.training.components import PartialComponents
from microstep.training.profiling.profile import Profile, profile_precisions
from microstep.utils.json_files import load_cached, store_cached
from microstep.utils.terminal import print_and_log

MIN_SPEED_UP = 1.1  #: times as fast as fp32, at least: less is not worth coarser arithmetic
CLOSE_TO_MIN_SPEED_UP = 0.05  #: to that: what another measurement may turn
MAX_NOISE_SHARE = 0.1  #: of the gradient's noise: the rounding that is lost in it
SMALLEST_SHARE = 1e-5  #: a share below it is not told apart from others


@dataclass(frozen=True)
class Recommendation:
    """A precision, and why."""

    name: str
    reason: str


def recommendation(profile: Profile) -> Recommendation:
    """Return the fastest precision that is worth it, rounds far below the gradient's noise and doesn't always overflow.

    Worth it is 1.1 times as fast as fp32, or anything where fp32 can't be measured; far below is a tenth. Where nothing
    is all that, it is fp32.
    """
    if not profile.measured:
        return Recommendation("fp32", f"nothing could be measured ({profile.failed.get('fp32')})")
    others = sorted((one.seconds, name) for name, one in profile.measured.items() if name != "fp32")
    fast = [name for _, name in others if is_fast_enough(profile, name)]
    fit = [name for name in fast if find_objection(profile, name) is None]
    if fit:
        return Recommendation(fit[0], f"{format_speed(profile, fit[0])}, {format_rounding(profile, fit[0])}")
    if fast:
        return Recommendation(
            "fp32", f"{fast[0]} is {format_speed(profile, fast[0])}, but {find_objection(profile, fast[0])}"
        )
    times = {name: profile.speed_up(name) or 0 for _, name in others}
    tried = f" ({', '.join(f'{name} {ratio:.2f}' for name, ratio in times.items())})" if times else ""
    near = next(filter(None, map(format_margin, times.values())), "")
    return Recommendation("fp32", f"nothing else is {MIN_SPEED_UP} times as fast{tried}{near}")


def is_fast_enough(profile: Profile, name: str) -> bool:
    """Say whether a precision is fast enough; where fp32 can't be had, any is."""
    times = profile.speed_up(name)
    return times is None or times >= MIN_SPEED_UP


def find_objection(profile: Profile, name: str) -> str | None:
    """Return what speaks against a precision, if anything does."""
    found = profile.measured[name].accuracy
    if not found.settled:
        return "it overflows whatever the scale"
    if not found.gradient_drift < MAX_NOISE_SHARE * profile.noise:
        drift, noise = format_percent(found.gradient_drift), format_percent(profile.noise)
        return f"its rounding ({drift}) is not far below the gradient's own noise ({noise})"
    return None


def format_speed(profile: Profile, name: str) -> str:
    """Return how fast a precision is, in words."""
    times = profile.speed_up(name)
    if times is None:
        return f"the fastest that can be had (fp32: {profile.failed.get('fp32')})"
    return f"{times:.2f} times as fast as fp32{format_margin(times)}"


def format_margin(times: float) -> str:
    """Return a warning where the next measurement may come to another end."""
    return (
        f" (close to the {MIN_SPEED_UP} that is asked for)"
        if abs(times / MIN_SPEED_UP - 1) < CLOSE_TO_MIN_SPEED_UP
        else ""
    )


def format_rounding(profile: Profile, name: str) -> str:
    """Return how a precision's rounding compares with the noise, in words."""
    drift = profile.measured[name].accuracy.gradient_drift
    return (
        f"its rounding ({format_percent(drift)}) far below the gradient's own noise ({format_percent(profile.noise)})"
    )


def format_percent(share: float) -> str:
    """Return a share in percent, with two digits where it is small: 112 %, 0.83 %, < 0.001 %."""
    if not isfinite(share):
        return "not finite"
    if 0 < share < SMALLEST_SHARE:
        return f"< {100 * SMALLEST_SHARE:g} %"
    return f"{100 * share:,.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


RecommendationKey = Mapping[str, Any]  #: all that a recommendation depends on


def recommend_or_load(components: PartialComponents, key: RecommendationKey) -> tuple[str, str]:
    """Return the precision that is recommended for an experiment, and why: as remembered, else measured and remembered.

    Where another process has remembered one meanwhile, it is that one.
    """
    known = load_recommendation(key, available_precisions(components.device))
    if known is None:
        print_and_log("precision=auto: nothing is remembered for this machine, model and batch; measuring …")
        found = recommendation(profile_precisions(components, recommendable_precisions(components)))
        known = load_recommendation(key, available_precisions(components.device)) or found
        store_recommendation(key, known)
    return known.name, known.reason


def recommendable_precisions(components: PartialComponents) -> tuple[str, ...]:
    """Return what may be recommended: never fp16 on a CPU, which is tens of times slower than anything else there."""
    return tuple(
        name for name in available_precisions(components.device) if name != "fp16" or components.device.type == "cuda"
    )


def load_recommendation(key: RecommendationKey, names: tuple[str, ...]) -> Recommendation | None:
    """Return what was remembered, where it is whole and possible."""
    known = load_cached(get_cache_name(key))
    name, reason = known.get("name"), known.get("reason")
    return Recommendation(name, reason) if name in names and isinstance(reason, str) else None


def store_recommendation(key: RecommendationKey, recommendation: Recommendation) -> None:
    """Remember a recommendation, where anything can be written."""
    store_cached(get_cache_name(key), {"name": recommendation.name, "reason": recommendation.reason, "of": dict(key)})


def get_cache_name(key: RecommendationKey) -> str:
    """Return the file's name in the cache."""
    described = json.dumps(key, sort_keys=True, default=str)
    return f"precision/{sha256(described.encode()).hexdigest()}.json"
