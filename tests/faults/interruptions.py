"""Signals that arrive at a moment of one's choice."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from microstep.errors import Stopped
from microstep.training.trainer import Trainer
from microstep.types.data import LoadedWindow
from microstep.utils import signals


class Lost(BaseException):
    """The process is gone: nothing more is written."""


def stop_at(trainer: Trainer, windows: int, lost: bool = False) -> None:
    """Train for a number of windows of the run, then stop by a real SIGTERM, or as if the process had died."""
    whole_epoch = trainer.loaders.train

    def train(*place: int) -> Iterator[LoadedWindow]:
        for window in whole_epoch(*place):
            if trainer.progress.windows == windows and lost:
                raise Lost
            if trainer.progress.windows == windows:
                os.kill(os.getpid(), signal.SIGTERM)
            yield window

    trainer.loaders.train = train  # type: ignore[method-assign]
    before = {number: signal.getsignal(number) for number in signals.STOP_SIGNALS}
    signals.install_signal_handlers()
    try:
        with pytest.raises(Lost if lost else Stopped):
            trainer.fit()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
