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
    """A signal that has arrived and waits for a safe point."""

    is_deferred = False
    signum: int | None = None


def install_signal_handlers() -> None:
    """Let SIGINT, SIGTERM and SIGUSR1 raise `Stopped`. A second signal always does so immediately."""
    for number in STOP_SIGNALS:
        signal.signal(number, handle_stop_signal)


def handle_stop_signal(signum: int, _frame: FrameType | None) -> None:
    if not PendingSignal.is_deferred or PendingSignal.signum is not None:
        raise Stopped(signum)
    PendingSignal.signum = signum


@contextmanager
def defer_signals() -> Iterator[None]:
    """Let signals wait for the next safe point, or for the end of this block."""
    PendingSignal.is_deferred, PendingSignal.signum = True, None
    try:
        yield
        raise_pending_signal()
    finally:
        PendingSignal.is_deferred = False


def raise_pending_signal() -> None:
    if PendingSignal.signum is not None:
        raise Stopped(PendingSignal.signum, safe=True)


def interruptible(items: Iterable[T]) -> Iterator[T]:
    """Yield items, with a safe point before each of them."""
    for item in items:
        raise_pending_signal()
        yield item
