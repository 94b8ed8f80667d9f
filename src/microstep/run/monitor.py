"""Chooses the validation metric by which checkpoints are compared."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite, nan

from microstep.errors import ConfigError
from microstep.types.protocols import Metrics


@dataclass(frozen=True)
class Monitor:
    """The validation metric that chooses the best checkpoint, and that `stop` and a schedule may follow."""

    name: str
    direction: str  #: max or min: whether a larger or a smaller value is better

    def value(self, val: Mapping[str, float]) -> float:
        """Return the metric, negated if smaller is better; NaN if the metric or the loss is not finite."""
        if self.name not in val:
            raise unknown_metric(self.name, val)
        value = val[self.name] if self.direction == "max" else -val[self.name]
        return value if isfinite(value) and isfinite(val.get("loss", 0.0)) else nan


def choose_monitor(typed: str | None, metrics: Metrics) -> Monitor:
    """Return the metric `NAME`, `max:NAME` or `min:NAME`; that of the task for None.

    Raise ConfigError if the task does not compute it, or its direction is neither typed nor known.
    """
    known = {**getattr(metrics, "directions", {}), metrics.monitor: metrics.direction}
    prefix, _, rest = (typed or "").partition(":")
    direction, name = (prefix, rest) if prefix in ("max", "min") and rest else (None, typed or metrics.monitor)
    names: Iterable[str] = [name]
    with suppress(Exception):  # a user's metrics may need a sample: the first validation tells then
        names = {**metrics.compute(), **known} if typed else names
    if name not in names:
        raise unknown_metric(str(typed), names)
    if direction is None and name not in known:
        raise ConfigError(f"monitor={typed}", "its direction is not known", f"type max:{name} or min:{name}")
    return Monitor(name, direction or known[name])


def unknown_metric(name: str, names: Iterable[str]) -> ConfigError:
    return ConfigError(f"monitor={name}", "the task has no such metric", f"the options are {', '.join(names)}")
