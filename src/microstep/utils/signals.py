"""Signals that stop a run: at once while it starts, between two batches while it trains.

SIGINT is Ctrl-C, SIGTERM what schedulers and `kill` send, SIGUSR1 what Slurm sends ahead of time where it is asked to.

An exception out of a signal handler may come between any two instructions, also while a lock is held (TensorBoard's
queue has one): whoever then waits for that lock waits for ever. So a run that has begun asks, where it is safe, whether
to stop.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from microstep.errors import Stopped

T = TypeVar("T")
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class PendingSignal:
    """What has arrived and waits for a safe moment."""

    deferred = False
    signum: int | None = None


def install_signal_handlers() -> None:
    """Let these signals stop this process as above; a second one always stops it at once."""
    for number in STOP_SIGNALS:
        signal.signal(number, handle_stop_signal)


def handle_stop_signal(signum: int, _frame: FrameType | None) -> None:
    """Handle a signal."""
    if not PendingSignal.deferred or PendingSignal.signum is not None:
        raise Stopped(signum)
    PendingSignal.signum = signum


@contextmanager
def defer_signals() -> Iterator[None]:
    """Let signals wait for the next safe moment, or for the end of this block."""
    PendingSignal.deferred, PendingSignal.signum = True, None
    try:
        yield
        raise_pending_signal()
    finally:
        PendingSignal.deferred = False


def raise_pending_signal() -> None:
    """Stop here where a signal has asked to.

    Raises:
        Stopped: naming the signal.
    """
    if PendingSignal.signum is not None:
        raise Stopped(PendingSignal.signum, safe=True)


def interruptible(items: Iterable[T]) -> Iterator[T]:
    """Yield each part; between two of them is a safe moment."""
    for part in items:
        raise_pending_signal()
        yield part
