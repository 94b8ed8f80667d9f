"""Tests of windows and micro-batches."""

from hypothesis import given
from hypothesis import strategies as st

from microstep.components.accumulation import Fixed


@given(st.integers(0, 500), st.integers(1, 9), st.integers(1, 40))
def test_every_position_is_in_one_window_in_order(samples, accum, batch_size) -> None:
    """No sample is dropped or repeated. Only the last micro-batch and the last window may be smaller."""
    windows = list(Fixed(accum, batch_size).windows(range(samples)))
    cut = [list(batch) for window in windows for batch in window.micro_batches]
    assert [position for batch in cut for position in batch] == list(range(samples))
    assert all(len(batch) == batch_size for batch in cut[:-1])
    assert all(len(window.micro_batches) == accum for window in windows[:-1])


@given(st.integers(0, 500), st.integers(1, 9), st.integers(1, 40))
def test_steps_are_known_beforehand(samples, accum, batch_size) -> None:
    """`steps` is the number of windows."""
    cut = Fixed(accum, batch_size)
    assert cut.steps(samples) == len(list(cut.windows(range(samples))))
