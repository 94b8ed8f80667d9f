"""What a job does inside hydra.main: find its directory, say how it failed, go on with a run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from microstep.config import trusted
from microstep.errors import MicrostepError
from microstep.files import shown
from microstep.gate import trusting
from microstep.resumption import AUTO, Resumption, automatic, goes_on

log = logging.getLogger(__name__)
FAILURES: list[BaseException] = []  #: of the jobs that this process has run
TAKEN_UP: list[Resumption] = []  #: the run that a single job goes on with, once it is checked


def job(function: Callable[[DictConfig], None]) -> Callable[[DictConfig], str | None]:
    """Log a job's failure whole, and keep it: a single one is raised by `launch`, of a sweep's the sweep tells.

    Raised through Hydra it would get a line of Hydra's own on stderr. What the function becomes returns why it failed.
    """

    @wraps(function)
    def contained(config: DictConfig) -> str | None:
        return perform(function, config)  # by reference: launchers pickle this closure, but not what it calls

    return contained


def perform(function: Callable[[DictConfig], None], config: DictConfig) -> str | None:
    """Run a job; return why it failed. A job of a sweep that leaves by sys.exit has failed, too."""
    try:
        function(config)
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit) and not of_a_sweep():
            raise
        log.exception("the job failed")
        FAILURES.append(error)
        return summarised(error)
    return None


def of_a_sweep() -> bool:
    """Say whether the job that runs is one of several."""
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def raise_failures() -> None:
    """Raise the failure of a single job."""
    if FAILURES:
        raise FAILURES[0]


def summarised(error: BaseException) -> str:
    """Return an exception in one line: one of ours as it is, an unforeseen one with its type."""
    if isinstance(error, MicrostepError):
        return str(error)
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":")


def run_directory() -> Path:
    """Return the directory of the job that runs."""
    return Path(HydraConfig.get().runtime.output_dir)


def resumed(config: DictConfig) -> Resumption | None:
    """Return the run that the job goes on with; None for one that starts."""
    directory = run_directory()
    asked = AUTO if of_a_sweep() else config.resume
    if TAKEN_UP or not goes_on(asked, directory):
        return TAKEN_UP[0] if TAKEN_UP else None
    return automatic(directory, config, trusting(config_directories(), trusted(config), directory))


def config_directories() -> list[Path]:
    """Return the directories that the user's own yamls come from: Hydra's search path."""
    sources = HydraConfig.get().runtime.config_sources
    return [Path(source.path) for source in sources if source.schema == "file"]


def choice(group: str) -> str:
    """Return the option chosen for a group."""
    return str(HydraConfig.get().runtime.choices[group])


def finished_already(directory: Path) -> str:
    """Return what is said of a run with nothing left to do."""
    return f"{shown(directory)}: the run is finished already; epochs=N lets it go further, where its schedule can"
