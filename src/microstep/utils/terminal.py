"""Prints to the terminal, unless the run is silenced because a sweep reports on it."""

import json
import logging
import os
import re
import shlex
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from sysconfig import get_path
from types import MappingProxyType
from typing import Any, TextIO

from tqdm import tqdm

from microstep.errors import escape_unprintable
from microstep.utils.json_files import replace_nonfinite
from microstep.utils.text import display_path

log = logging.getLogger(__name__)
PACKAGE_FOLDERS = {"site-packages", "dist-packages"}
LIBRARIES = (get_path("stdlib"), str(Path(__file__).parents[1]))  #: directories of Python and of this package
CONTROL_CHARACTER = re.compile(r"[^\n\x20-\x7e\xa0-\U0010ffff]")


class TerminalState:
    """State of the terminal in this process."""

    captured_warnings: list[str] | None = None  #: warnings of a silenced run; None if the run may print
    commands: Mapping[str, str] = MappingProxyType({})  #: command of each program; empty in a notebook
    json_stream: TextIO | None = None  #: where --json prints its object; None without it


@contextmanager
def silenced() -> Iterator[list[str]]:
    """Print nothing in this block; yield the list of the warnings that would have been printed."""
    before, TerminalState.captured_warnings = TerminalState.captured_warnings, []
    try:
        yield TerminalState.captured_warnings
    finally:
        TerminalState.captured_warnings = before


@contextmanager
def json_alone() -> Iterator[None]:
    """Print nothing to stdout in this block but what `print_json` gets."""
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        TerminalState.json_stream = sys.__stdout__
        try:
            yield
        finally:
            TerminalState.json_stream = None


def print_json(content: Mapping[str, Any]) -> None:
    """Print an object as one line of JSON if --json was given. Numbers that are not finite become null."""
    if (stream := TerminalState.json_stream) is not None:
        write_above_bars(json.dumps(replace_nonfinite(dict(content)), default=str), stream)


def print_above_bars(text: str, stream: TextIO | None = None) -> None:
    """Print above any progress bar, unless the run is silenced."""
    if TerminalState.captured_warnings is None:
        write_above_bars(text, stream or sys.stdout)


def write_above_bars(text: str, stream: TextIO) -> None:
    """Print above any progress bar, with control characters escaped. A closed pipe (`| head`) doesn't stop the run."""
    try:
        tqdm.write(CONTROL_CHARACTER.sub(lambda match: escape_unprintable(match[0]), text), file=stream)
        stream.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def print_and_log(text: str) -> None:
    print_above_bars(text)
    log.info(text)


class NoticeHandler(logging.Handler):
    """Prints records of `microstep.notice` in one line: `warning: …` on stderr, or the message on stdout."""

    def emit(self, record: logging.LogRecord) -> None:
        message = escape_unprintable(record.getMessage())
        if record.levelno < logging.WARNING:
            return print_above_bars(message, sys.stdout)
        if TerminalState.captured_warnings is not None:
            TerminalState.captured_warnings.append(message)
        return print_above_bars(f"warning: {message}", sys.stderr)


def install_notice_handler() -> None:
    """Let notices reach the terminal. Further calls have no effect."""
    notices = logging.getLogger("microstep.notice")
    notices.setLevel(logging.INFO)
    if not any(isinstance(handler, NoticeHandler) for handler in notices.handlers):
        notices.addHandler(NoticeHandler())


def log_python_warnings() -> None:
    """Log the Python warnings of libraries, and show those of the user's own modules in one line. For programs only."""
    warnings.showwarning = log_python_warning


def log_python_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    is_library = filename.startswith(LIBRARIES) or not PACKAGE_FOLDERS.isdisjoint(Path(filename).parts)
    logger = log if is_library else logging.getLogger("microstep.notice")
    logger.warning("%s: %s (%s:%d)", category.__name__, " ".join(str(message).split()), filename, lineno)


def called(program: str) -> str:
    """Return the command of a program, in the form in which this one was started."""
    return TerminalState.commands.get(program) or f"python -m microstep {program.removeprefix('compute_')}"


def run_command(key: str, directory: Path) -> str:
    return f"{called('train')} {key}={shlex.quote(display_path(directory))}"
