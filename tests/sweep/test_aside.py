"""A launcher runs in a thread beside the one that receives signals."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from threading import Event
from time import monotonic, sleep

import pytest

from microstep.errors import Stopped
from microstep.sweep.launchers import parallel as module
from microstep.sweep.launchers.parallel import run_in_thread
from microstep.utils import signals
from tests.config.test_names import within


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Install the signal handlers; restore the previous ones at the end."""
    before = {number: signal.getsignal(number) for number in signals.STOP_SIGNALS}
    signals.install_signal_handlers()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_launcher_that_takes_sigterm_for_itself_does_not_keep_it() -> None:
    """A signal is noticed although the launcher (Ray) has installed a handler in C, which Python doesn't see."""
    ignored = ctypes.c_void_p(1)

    def launch() -> None:
        ctypes.CDLL(None).signal(signal.SIGTERM, ignored)
        sleep(2 * module.POLL_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)
        sleep(module.POLL_SECONDS)

    with within(10), pytest.raises(Stopped), signals.defer_signals():
        run_in_thread(launch, is_busy=lambda: False)


def test_a_stopped_sweep_waits_for_runs_at_work_and_not_for_a_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a signal, a launcher that waits for queued jobs is abandoned once no run is active."""
    monkeypatch.setattr(module, "STOP_GRACE_SECONDS", 0.3)
    working_until = monotonic() + 1.0
    with within(10), pytest.raises(Stopped), signals.defer_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        run_in_thread(lambda: Event().wait(60) and None, is_busy=lambda: monotonic() < working_until)
    assert 1.0 < monotonic() - (working_until - 1.0) < 5


def test_without_a_signal_it_waits_to_the_end() -> None:
    """Without a signal, the launcher is waited for, however long no run is active."""
    done = Event()
    with within(10), signals.defer_signals():
        run_in_thread(lambda: sleep(1.0) or done.set(), is_busy=lambda: False)
    assert done.is_set()


def test_a_second_signal_is_heard_at_once() -> None:
    """A second signal does not wait for the launcher."""
    began = monotonic()
    with within(10), pytest.raises(Stopped), signals.defer_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        run_in_thread(lambda: Event().wait(60) and None, is_busy=lambda: True)
    assert monotonic() - began < 5
