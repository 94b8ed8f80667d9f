"""The metric that is monitored: its name, its direction, and the value by which epochs are compared."""

from __future__ import annotations

import math

import pytest
import torch

from microstep.components.task import Classification
from microstep.errors import ConfigError
from microstep.run.monitor import Monitor, choose_monitor

METRICS = Classification(("a", "b"), torch.tensor([0, 1]), torch.device("cpu")).metrics()


class OwnMetrics:
    """Metrics of one's own, without directions, that can't be computed without a sample if `strict`."""

    monitor, direction = "error", "min"

    def __init__(self, strict: bool) -> None:
        self.strict = strict

    def compute(self) -> dict[str, float]:
        return {"error": 1 / (0 if self.strict else 1), "recall": 0.0}


def refusal(typed: str, metrics: object = METRICS) -> str:
    with pytest.raises(ConfigError) as caught:
        choose_monitor(typed, metrics)
    return str(caught.value)


@pytest.mark.parametrize(
    ("typed", "chosen"),
    [
        (None, Monitor("accuracy", "max")),
        ("f1_macro", Monitor("f1_macro", "max")),
        ("loss", Monitor("loss", "min")),
        ("min:accuracy", Monitor("accuracy", "min")),
        ("max:f1_weighted", Monitor("f1_weighted", "max")),
    ],
)
def test_any_metric_of_the_task_can_be_monitored(typed: str | None, chosen: Monitor) -> None:
    """Its direction is the task's, unless it is typed."""
    assert choose_monitor(typed, METRICS) == chosen


def test_a_metric_that_is_not_computed_is_refused_with_the_options() -> None:
    options = "the task has no such metric; the options are loss, accuracy, f1_macro, f1_weighted"
    assert refusal("acuracy") == f"monitor=acuracy: {options}"
    assert refusal("max:top9") == f"monitor=max:top9: {options}"


@pytest.mark.parametrize("strict", [False, True])
def test_a_direction_that_is_not_known_must_be_typed(strict: bool) -> None:
    """Metrics of one's own need no `directions`, nor values without samples."""
    metrics = OwnMetrics(strict)
    assert refusal("recall", metrics) == ("monitor=recall: its direction is not known; type max:recall or min:recall")
    assert choose_monitor("max:recall", metrics) == Monitor("recall", "max")
    assert choose_monitor("error", metrics) == Monitor("error", "min")


def test_a_larger_value_is_always_better() -> None:
    """A metric that is to be small is negated; one that is not finite, or whose loss is not, is NaN."""
    assert Monitor("f1", "max").value({"loss": 1.0, "f1": 0.5}) == 0.5
    assert Monitor("loss", "min").value({"loss": 1.0}) == -1.0
    for val in ({"f1": math.nan}, {"f1": math.inf}, {"f1": 0.5, "loss": math.nan}):
        assert math.isnan(Monitor("f1", "max").value(val))
    with pytest.raises(ConfigError, match="monitor=f1: the task has no such metric; the options are loss"):
        Monitor("f1", "max").value({"loss": 1.0})
