"""Signals that stop a run: immediately at the start, and between two batches during training.

SIGINT is Ctrl-C, SIGTERM is sent by schedulers and `kill`, and SIGUSR1 by Slurm before the time limit if asked to.

An exception from a signal handler may interrupt any instruction, even while a lock is held, such as that of
TensorBoard's queue. Later users of that lock would then wait forever. Training therefore only checks at safe points
if a signal has arrived.
"""

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from microstep.errors import Stopped

T = TypeVar("T")
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class PendingSignal:
    """A signal that has arrived and waits for a safe point.

    If several processes train together, it also waits until all of them know of it, so that all stop at one point.
    """

    is_deferred = False
    signum: int | None = None
    is_shared = False  #: whether it waits for the other processes
    is_known = False  #: whether they know of it
    is_repeated = False  #: whether the process that started this one sends several signals to stop it once


def install_signal_handlers() -> None:
    """Let SIGINT, SIGTERM and SIGUSR1 raise `Stopped`. A second signal always does so immediately."""
    for number in STOP_SIGNALS:
        signal.signal(number, handle_stop_signal)


def handle_stop_signal(signum: int, _frame: FrameType | None) -> None:
    is_second = PendingSignal.signum is not None
    if not PendingSignal.is_deferred or (is_second and not PendingSignal.is_repeated):
        raise Stopped(signum)
    PendingSignal.signum = PendingSignal.signum or signum


@contextmanager
def defer_signals() -> Iterator[None]:
    """Let signals wait for the next safe point, or for the end of this block."""
    PendingSignal.is_deferred, PendingSignal.signum, PendingSignal.is_known = True, None, False
    try:
        yield
        raise_pending_signal()
    finally:
        PendingSignal.is_deferred = False


def raise_pending_signal() -> None:
    if PendingSignal.signum is not None and (PendingSignal.is_known or not PendingSignal.is_shared):
        raise Stopped(PendingSignal.signum, safe=True)


def interruptible(items: Iterable[T]) -> Iterator[T]:
    """Yield items, with a safe point before each of them."""
    for item in items:
        raise_pending_signal()
        yield item


def describe_exit(code: int) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        hint = "; the system may have run out of memory" if name == "SIGKILL" else ""
        return f"its process was killed by {name}{hint}"
    return f"its process ended with exit code {code} and reported no result"
