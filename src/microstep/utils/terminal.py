"""Whose the terminal is: a run's own, or that of a sweep, in which a run is one line."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

log = logging.getLogger(__name__)


class TerminalState:
    """What is known of it."""

    heard: list[str] | None = None  #: a run's warnings, where the terminal isn't its own


@contextmanager
def silenced() -> Iterator[list[str]]:
    """Keep a run off the terminal, where its sweep tells of it; yield the warnings that it would have shown."""
    before, TerminalState.heard = TerminalState.heard, []
    try:
        yield TerminalState.heard
    finally:
        TerminalState.heard = before


def print_above_bars(text: str, stream: TextIO | None = None) -> None:
    """Print above any bar, where the terminal is the run's own."""
    if TerminalState.heard is None:
        write_above_bars(text, stream or sys.stdout)


def write_above_bars(text: str, stream: TextIO) -> None:
    """Print above any bar. A reader that has gone away (`| head`) doesn't stop a run."""
    try:
        tqdm.write(text, file=stream)
        stream.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def print_and_log(text: str) -> None:
    """Print a text above any bar, and log it."""
    print_above_bars(text)
    log.info(text)


class NoticeHandler(logging.Handler):
    """Shows what is logged under `microstep.notice`, in one line each: `warning: …` on stderr, or plain on stdout."""

    def emit(self, record: logging.LogRecord) -> None:
        """Show one."""
        warns = record.levelno >= logging.WARNING
        if warns and TerminalState.heard is not None:
            TerminalState.heard.append(record.getMessage())
        print_above_bars(
            f"warning: {record.getMessage()}" if warns else record.getMessage(), sys.stderr if warns else sys.stdout
        )


def install_notice_handler() -> None:
    """Let notices reach the terminal; once is enough."""
    notices = logging.getLogger("microstep.notice")
    notices.setLevel(logging.INFO)
    if not any(isinstance(handler, NoticeHandler) for handler in notices.handlers):
        notices.addHandler(NoticeHandler())


SCRIPTS = {"train": "microstep-train", "evaluate": "microstep-evaluate", "compute_stats": "microstep-stats"}


def called(program: str) -> str:
    """Return what to type for a program, where it was started in the same way as this one."""
    started = Path(sys.argv[0]).name
    if started == "__main__.py":
        return f"python -m microstep {SCRIPTS[program].removeprefix('microstep-')}"
    return SCRIPTS[program] if started in SCRIPTS.values() else f"python {program}.py"
