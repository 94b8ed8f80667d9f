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


class Terminal:
    """What is known of it."""

    heard: list[str] | None = None  #: a run's warnings, where the terminal isn't its own


@contextmanager
def quietly() -> Iterator[list[str]]:
    """Keep a run off the terminal, where its sweep tells of it; yield the warnings that it would have shown."""
    before, Terminal.heard = Terminal.heard, []
    try:
        yield Terminal.heard
    finally:
        Terminal.heard = before


def emit(text: str, stream: TextIO | None = None) -> None:
    """Print above any bar, where the terminal is the run's own."""
    if Terminal.heard is None:
        write(text, stream or sys.stdout)


def write(text: str, stream: TextIO) -> None:
    """Print above any bar. A reader that has gone away (`| head`) doesn't stop a run."""
    try:
        tqdm.write(text, file=stream)
        stream.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def say(text: str) -> None:
    """Print a text above any bar, and log it."""
    emit(text)
    log.info(text)


class Notices(logging.Handler):
    """Shows what is logged under `microstep.notice`, in one line each: `warning: …` on stderr, or plain on stdout."""

    def emit(self, record: logging.LogRecord) -> None:
        """Show one."""
        warns = record.levelno >= logging.WARNING
        if warns and Terminal.heard is not None:
            Terminal.heard.append(record.getMessage())
        emit(f"warning: {record.getMessage()}" if warns else record.getMessage(), sys.stderr if warns else sys.stdout)


def show_notices() -> None:
    """Let notices reach the terminal; once is enough."""
    notices = logging.getLogger("microstep.notice")
    notices.setLevel(logging.INFO)
    if not any(isinstance(handler, Notices) for handler in notices.handlers):
        notices.addHandler(Notices())


SCRIPTS = {"train": "microstep-train", "evaluate": "microstep-evaluate", "compute_stats": "microstep-stats"}


def called(program: str) -> str:
    """Return what to type for a program, where it was started in the same way as this one."""
    started = Path(sys.argv[0]).name
    if started == "__main__.py":
        return f"python -m microstep {SCRIPTS[program].removeprefix('microstep-')}"
    return SCRIPTS[program] if started in SCRIPTS.values() else f"python {program}.py"
