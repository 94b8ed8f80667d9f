"""What ends a run before its last epoch."""

from __future__ import annotations

from math import nan

import pytest

from microstep.components.stop import At, Budget, Never, Patience
from microstep.types.protocols import Stateful, Stopping


def stops_after(stop: Stopping, values: list[float]) -> int | None:
    """Return the epoch after which a run with these values stops."""
    return next((epoch for epoch, value in enumerate(values, 1) if stop.after(epoch, value, 60.0 * epoch)), None)


@pytest.mark.parametrize(
    ("values", "epoch"),
    [
        ([0.5, 0.6, 0.6, 0.6, 0.6], 4),
        ([0.5, 0.6, 0.55, 0.61, 0.6, 0.6], 6),
        ([nan, nan, 0.5], 2),
        ([0.5, nan, nan], 3),
        ([-2.0, -1.0, -0.5, -0.25], None),
    ],
)
def test_only_a_strict_improvement_renews_patience(values: list[float], epoch: int | None) -> None:
    """Equal values and NaN count as no improvement: a plateau ends the run."""
    assert stops_after(Patience(epochs=2), values) == epoch


def test_a_small_improvement_is_none() -> None:
    """The best value is that of the last improvement by more than `min_delta`."""
    assert stops_after(Patience(2, min_delta=0.1), [0.5, 0.55, 0.6, 0.9]) == 3
    assert stops_after(Patience(2, min_delta=0.1), [0.5, 0.55, 0.61, 0.9, 1.01]) is None


def test_patience_goes_on_from_its_state() -> None:
    """Interrupted after any epoch, it ends the run after the same one."""
    values = [0.5, 0.6, 0.6, 0.6, 0.6]
    for cut in range(4):
        before, after = Patience(2), Patience(2)
        assert isinstance(before, Stateful)
        assert stops_after(before, values[:cut]) is None
        after.load_state_dict(before.state_dict())
        assert stops_after(after, values[cut:]) == 4 - cut


def test_a_budget_a_number_and_never() -> None:
    """Seconds, epochs, and nothing: what the metric is does not matter."""
    assert stops_after(Budget(minutes=2.5), [0.0] * 9) == 3
    assert stops_after(At(epoch=4), [0.0] * 9) == 4
    assert stops_after(Never(), [0.0] * 9) is None
    assert Budget(0.5).after(1, 0.0, 30.0) == "budget of 0.5 minutes"
