"""What a job does inside hydra.main: find its directory, say how it failed, go on with a run."""

from __future__ import annotations

import logging
import os
import sys
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
from microstep.resumption import Resumption, automatic, goes_on

log = logging.getLogger(__name__)
FAILURES: list[Exception] = []  #: of the jobs that this process has run
TAKEN_UP: list[Resumption] = []  #: the run that a single job goes on with, once it is checked
FRONT_DOOR = os.getpid()


def job(function: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """Log a job's failure whole, and hand it to `launch`; a sweep says it in one line and goes on.

    Raised through Hydra it would get a line of Hydra's own on stderr. A launcher's other process has to raise it.
    """

    @wraps(function)
    def contained(config: DictConfig) -> None:
        try:
            function(config)
        except Exception as error:
            log.exception("the job failed")
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                print(f"error: {error if isinstance(error, MicrostepError) else summarised(error)}", file=sys.stderr)
            if os.getpid() != FRONT_DOOR:
                raise
            FAILURES.append(error)

    return contained


def raise_failures() -> None:
    """Raise the failure of a single job."""
    if FAILURES:
        raise FAILURES[0]


def summarised(error: BaseException) -> str:
    """Return an unforeseen exception in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def run_directory() -> Path:
    """Return the directory of the job that runs."""
    return Path(HydraConfig.get().runtime.output_dir)


def resumed(config: DictConfig) -> Resumption | None:
    """Return the run that the job goes on with; None for one that starts."""
    directory = run_directory()
    if TAKEN_UP or not goes_on(config.resume, directory):
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
