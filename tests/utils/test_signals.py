"""Signals stop a run where it is safe."""

import os
import signal

import pytest

from microstep.errors import Stopped
from microstep.utils import signals


@pytest.fixture(autouse=True)
def listening():
    """Handle signals as a program does, and put the old handlers back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signals.install_signal_handlers()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_while_starting_stops_at_once() -> None:
    """Outside of training the exception comes where the signal does, with the exit code 128 + n."""
    with pytest.raises(Stopped) as stopped:
        os.kill(os.getpid(), signal.SIGTERM)
    assert stopped.value.exit_code == 143


def test_a_signal_in_training_waits_for_the_end_of_the_part() -> None:
    """Work on a part is finished, and the next is not begun."""
    done = []
    with pytest.raises(Stopped), signals.defer_signals():
        for part in signals.interruptible(range(5)):
            if part == 2:
                os.kill(os.getpid(), signal.SIGINT)
            done.append(part)
    assert done == [0, 1, 2]


def test_a_second_signal_stops_at_once() -> None:
    """Who can't wait sends it again."""
    reached = []
    with pytest.raises(Stopped), signals.defer_signals():
        os.kill(os.getpid(), signal.SIGINT)
        reached.append("after the first")
        os.kill(os.getpid(), signal.SIGINT)
        reached.append("after the second")
    assert reached == ["after the first"]


def test_a_signal_in_the_last_part_is_not_forgotten() -> None:
    """A sweep has to stop even where the signal came as a run was finishing."""
    with pytest.raises(Stopped), signals.defer_signals():
        os.kill(os.getpid(), signal.SIGTERM)
    with signals.defer_signals():
        pass
