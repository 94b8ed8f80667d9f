"""What can go wrong, and the exit code each kind of failure gets.

An error is one line: ``<subject>: <reason>; <what to do>``. The subject is what the user typed
(``accum=0``) or what broke (``checkpoints/epoch-0003.pt``).
"""

from __future__ import annotations


def escape_unprintable(text: str) -> str:
    """Return text fit for a terminal and a picture: on one line, and nothing in it that means something to them."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class MicrostepError(Exception):
    """A failure that the user can understand and act upon."""

    exit_code = 1

    def __init__(self, subject: str, reason: str, remedy: str) -> None:
        super().__init__(subject, reason, remedy)  # all of it in args: it survives pickling

    def __str__(self) -> str:
        subject, reason, remedy = self.args
        return escape_unprintable(" ".join(f"{subject}: {reason}; {remedy}".split()))


class ConfigError(MicrostepError):
    """The experiment as described can't be run."""

    exit_code = 2


class DataError(MicrostepError):
    """The data are missing, or are not what they should be."""

    exit_code = 2


class Diverged(MicrostepError):  # noqa: N818
    """The loss or its gradient is no longer finite."""

    exit_code = 3


class StorageError(MicrostepError):
    """Something could not be written."""

    exit_code = 4


class RunInUse(ConfigError):  # noqa: N818
    """Another run has this directory."""

    exit_code = 5


class CheckpointRefused(MicrostepError):  # noqa: N818
    """A checkpoint is missing, damaged, or not this run's."""

    exit_code = 6


class Stopped(BaseException):
    """A signal asks the program to stop. Not an Exception: nothing that contains a job's failures may contain it.

    Args:
        signum: the signal's number.
        safe: whether it comes at a safe moment, with nothing half done; otherwise it may come between any two lines.
    """

    def __init__(self, signum: int, safe: bool = False) -> None:
        super().__init__(signum, safe)
        self.signum, self.safe = signum, safe
        self.remedy = ""  #: how to go on, where whoever started the job knows
        self.exit_code = 128 + signum


def format_error(error: BaseException) -> str:
    """Return an exception in one line: one of ours as it is, an unforeseen one with its type."""
    if isinstance(error, MicrostepError):
        return str(error)
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":")
