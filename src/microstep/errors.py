"""Errors, and the exit code of each.

An error is one line, `<subject>: <reason>; <remedy>`. The subject is what the user typed (`accum=0`) or the file that
is affected (`checkpoints/epoch-0003.pt`).
"""

MAX_ERROR_LENGTH = 2000  #: characters of an unexpected error that are shown and recorded


def escape_unprintable(text: str) -> str:
    """Return text on one line, with line breaks, control characters and surrogates as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def truncate(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


class MicrostepError(Exception):
    """Base class of the errors that the user can resolve."""

    exit_code = 1

    def __init__(self, subject: str, reason: str, remedy: str) -> None:
        super().__init__(subject, reason, remedy)  # keeps all three when pickled

    def __str__(self) -> str:
        subject, reason, remedy = self.args
        return escape_unprintable(" ".join(f"{subject}: {reason}; {remedy}".split()))


class ConfigError(MicrostepError):
    """The config or the command line is invalid."""

    exit_code = 2


class DataError(MicrostepError):
    """The data are missing or differ from what is expected."""

    exit_code = 2


class Diverged(MicrostepError):  # noqa: N818
    """The loss or its gradient is no longer finite."""

    exit_code = 3
    window = 0  #: number of windows of the run until then, if known


class Pruned(MicrostepError):  # noqa: N818
    """A search has ended the run early."""


class OutOfMemory(MicrostepError):  # noqa: N818
    """Memory ran out in a training step."""


class ProcessLost(MicrostepError):  # noqa: N818
    """Another process of the run has failed or died."""


class StorageError(MicrostepError):
    """A file can't be written, or the system can't read it."""

    exit_code = 4


class RunInUse(ConfigError):  # noqa: N818
    """Another process is using the run directory."""

    exit_code = 5


class CheckpointRefused(MicrostepError):  # noqa: N818
    """A checkpoint is missing, damaged, or of another run."""

    exit_code = 6


class Stopped(BaseException):
    """Raised when a signal stops the program. It is no Exception, so that handlers of failed jobs don't catch it."""

    def __init__(self, signum: int, safe: bool = False) -> None:
        super().__init__(signum, safe)
        self.signum = signum
        self.safe = safe  #: whether it is raised at a safe point; otherwise it may interrupt any instruction
        self.remedy = ""  #: how to resume, if known
        self.exit_code = 128 + signum


def format_error(error: BaseException) -> str:
    """Return an exception in one line of limited length; one that is no MicrostepError with its type."""
    unexpected = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":")
    text = str(error) if isinstance(error, MicrostepError) else escape_unprintable(unexpected)
    return truncate(text, MAX_ERROR_LENGTH)
