"""Recommends a precision from its measured cost and error, and caches the recommendation."""

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

MIN_SPEED_UP = 1.1  #: required speed-up over fp32
CLOSE_TO_MIN_SPEED_UP = 0.05  #: relative distance at which another measurement may decide otherwise
MAX_NOISE_SHARE = 0.1  #: allowed rounding, as a share of the gradient's noise
SMALLEST_SHARE = 1e-5  #: smaller shares are shown as "less than"


@dataclass(frozen=True)
class Recommendation:
    """Recommended precision and the reason."""

    name: str
    reason: str


def recommend(profile: Profile) -> Recommendation:
    """Return the fastest precision that is accurate and at least 1.1 times as fast as fp32, otherwise fp32.

    A precision is accurate if its rounding is below a tenth of the gradient's noise and its gradient doesn't always
    overflow. If fp32 can't be measured, any speed is accepted.
    """
    if not profile.measured:
        return Recommendation("fp32", f"nothing could be measured ({profile.failed.get('fp32')})")
    others = sorted((one.seconds, name) for name, one in profile.measured.items() if name != "fp32")
    fast = [name for _, name in others if is_fast_enough(profile, name)]
    fit = [name for name in fast if find_objection(profile, name) is None]
    if fit:
        return Recommendation(fit[0], f"{format_speed(profile, fit[0])}, {format_rounding(profile, fit[0])}")
    if fast:
        speed, objection = format_speed(profile, fast[0]), find_objection(profile, fast[0])
        return Recommendation("fp32", f"{fast[0]} is {speed}, but {objection}")
    times = {name: profile.speed_up(name) or 0 for _, name in others}
    tried = f" ({', '.join(f'{name} {ratio:.2f}' for name, ratio in times.items())})" if times else ""
    near = next(filter(None, map(format_margin, times.values())), "")
    return Recommendation("fp32", f"nothing else is {MIN_SPEED_UP} times as fast{tried}{near}")


def is_fast_enough(profile: Profile, name: str) -> bool:
    times = profile.speed_up(name)
    return times is None or times >= MIN_SPEED_UP


def find_objection(profile: Profile, name: str) -> str | None:
    found = profile.measured[name].accuracy
    if not found.settled:
        return "it overflows whatever the scale"
    if not found.gradient_drift < MAX_NOISE_SHARE * profile.noise:
        drift, noise = format_percent(found.gradient_drift), format_percent(profile.noise)
        return f"its rounding ({drift}) is not far below the gradient's own noise ({noise})"
    return None


def format_speed(profile: Profile, name: str) -> str:
    times = profile.speed_up(name)
    if times is None:
        return f"the fastest that can be had (fp32: {profile.failed.get('fp32')})"
    return f"{times:.2f} times as fast as fp32{format_margin(times)}"


def format_margin(times: float) -> str:
    close = abs(times / MIN_SPEED_UP - 1) < CLOSE_TO_MIN_SPEED_UP
    return f" (close to the {MIN_SPEED_UP} that is asked for)" if close else ""


def format_rounding(profile: Profile, name: str) -> str:
    drift, noise = profile.measured[name].accuracy.gradient_drift, format_percent(profile.noise)
    return f"its rounding ({format_percent(drift)}) far below the gradient's own noise ({noise})"


def format_percent(share: float) -> str:
    if not isfinite(share):
        return "not finite"
    if 0 < share < SMALLEST_SHARE:
        return f"< {100 * SMALLEST_SHARE:g} %"
    return f"{100 * share:,.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def recommend_or_load(components: PartialComponents, key: Mapping[str, Any]) -> tuple[str, str]:
    """Return the recommended precision and the reason: cached, also by another process meanwhile, or measured."""
    known = load_recommendation(key, available_precisions(components.device))
    if known is None:
        print_and_log("precision=auto: nothing is remembered for this machine, model and batch; measuring …")
        found = recommend(profile_precisions(components, recommendable_precisions(components)))
        known = load_recommendation(key, available_precisions(components.device)) or found
        store_recommendation(key, known)
    return known.name, known.reason


def recommendable_precisions(components: PartialComponents) -> tuple[str, ...]:
    """Return the available precisions without fp16 on a CPU, where it is tens of times slower than any other."""
    on_cuda = components.device.type == "cuda"
    return tuple(name for name in available_precisions(components.device) if name != "fp16" or on_cuda)


def load_recommendation(key: Mapping[str, Any], names: tuple[str, ...]) -> Recommendation | None:
    """Return the cached recommendation; None if there is none, or it is damaged or not available."""
    known = load_cached(get_cache_name(key))
    name, reason = known.get("name"), known.get("reason")
    return Recommendation(name, reason) if name in names and isinstance(reason, str) else None


def store_recommendation(key: Mapping[str, Any], recommendation: Recommendation) -> None:
    store_cached(get_cache_name(key), {"name": recommendation.name, "reason": recommendation.reason, "of": dict(key)})


def get_cache_name(key: Mapping[str, Any]) -> str:
    described = json.dumps(key, sort_keys=True, default=str)
    return f"precision/{sha256(described.encode()).hexdigest()}.json"
