"""Whose the terminal is: a run's own, or that of a sweep, in which a run is one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from tqdm import tqdm


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
