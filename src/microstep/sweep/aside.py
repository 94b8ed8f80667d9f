"""A launcher at work in a second thread, so that this one is free for signals whatever the launcher does.

Ray takes SIGTERM for itself when it starts, in Python and in C, and ends the process without a word. Only the main
thread can take it back, and there is no moment of which we know that it comes after: so it is taken back all the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Thread
from time import monotonic

from microstep.utils import signals

TICK = 0.2  #: seconds between two looks
GRACE = 5.0  #: seconds without any run at work after which a launcher that was asked to stop is left alone


def aside(work: Callable[[], None], busy: Callable[[], bool]) -> None:
    """Do some work and wait for it; once a signal has come, only for as long as something is busy.

    What waits in a cluster's queue may wait for hours; it ends by itself when its turn comes.
    """
    thread = Thread(target=work, daemon=True)
    thread.start()
    idle_since = monotonic()
    for _ in ticks(thread):
        signals.listen()
        if signals.Pending.signum is None or busy():
            idle_since = monotonic()
        if monotonic() - idle_since > GRACE:
            return


def ticks(thread: Thread) -> Iterator[None]:
    """Yield again and again until a thread is done."""
    while thread.is_alive():
        thread.join(TICK)
        yield
