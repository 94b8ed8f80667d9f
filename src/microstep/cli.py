"""The front door: every job is composed and checked before hydra.main starts, and before torch is imported.

hydra.main alone can't keep the error contract: it exits with 1, prints several lines, and makes a directory first.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

from hydra._internal.utils import get_args_parser  # the very parser that hydra.main will use
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from microstep import names, signals
from microstep.composer import Composer, quote
from microstep.directories import claimed, refuse_a_second_run
from microstep.errors import ConfigError, MicrostepError, Stopped
from microstep.page import page
from microstep.places import directory_of, refuse_odd_places

Main = Callable[[], Any]
log = logging.getLogger(__name__)
FAILURES: list[Exception] = []  #: of the jobs that this process has run
FRONT_DOOR = os.getpid()


def launch(main: Main, config_name: str) -> NoReturn:
    """Check the command line, run the hydra.main function, and exit with the contract's code."""
    signals.listen()
    names.register()
    debugging = os.environ.setdefault("HYDRA_FULL_ERROR", "0") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hydra.main lets exceptions out instead of printing them itself
    try:
        refuse_odd_places(*sys.argv)
        run(main, config_name, Path(sys.argv[0]).resolve().parent / "conf")
        raise_failures()
    except MicrostepError as error:
        fail(str(error), error.exit_code)
    except Stopped as error:
        fail(f"stopped by {signal.Signals(error.signum).name}", error.exit_code)
    except Exception as error:
        if debugging:
            raise
        fail(f"{summarised(error)}; the traceback is in the run's train.log, or set HYDRA_FULL_ERROR=1", 1)
    sys.exit(0)


def fail(line: str, code: int) -> NoReturn:
    print(f"error: {line}", file=sys.stderr, flush=True)
    sys.exit(code)


def summarised(error: BaseException) -> str:
    """Return an unforeseen exception in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def run(main: Main, config_name: str, conf: Path) -> None:
    """Check, then hand over."""
    arguments = parse(sys.argv[1:])
    if arguments.help:
        print(page(sys.modules["__main__"].__doc__ or "", conf, config_name))
        return
    if arguments.config_path:
        raise ConfigError(
            f"--config-path {arguments.config_path}", "the yamls are in conf/", "add yours by --config-dir"
        )
    overrides = [quote(word) for word in arguments.overrides]
    flags = [word for word in sys.argv[1:] if word not in arguments.overrides]
    sys.argv[1:] = [*flags, *overrides]  # Hydra's own parser wants the flags on one side
    if arguments.multirun and config_name != "train":
        raise ConfigError("-m", "only train.py has runs to sweep over", "call this program once for each value")
    also = additional(arguments.config_dir)
    with Composer.opened(conf, arguments.config_name or config_name, also) as composer:
        jobs = composer.jobs(overrides) if arguments.multirun else [composer.job(overrides)]
    if arguments.cfg or arguments.info or arguments.hydra_help or arguments.shell_completion:
        main()
    elif arguments.multirun:
        sweep(main, jobs)
    else:
        single(main, jobs[0], own_directory=config_name == "train")


def parse(words: list[str]) -> Namespace:
    """Return Hydra's own flags and the overrides.

    Raises:
        ConfigError: for a flag that Hydra doesn't have.
    """
    parser: ArgumentParser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise ConfigError(" ".join(words), message, "see --help")

    parser.error = refuse  # type: ignore[method-assign]
    return parser.parse_intermixed_args(words)


def additional(directory: str | None) -> Path | None:
    """Return the directory that --config-dir adds to the search path."""
    if directory is not None and not Path(directory).is_dir():
        raise ConfigError(f"--config-dir {directory}", "no such directory", "give one that holds yamls")
    return None if directory is None else Path(directory)


def quote_plain(path: str) -> str:
    """Return a path as one quoted word of Hydra's grammar."""
    return quote(f"run={Path(path).resolve()}").removeprefix("run=")


def single(main: Main, job: DictConfig, own_directory: bool) -> None:
    """Run one job; where its config, its data or its machine won't do, no directory is left behind."""
    directory = directory_of(job, "hydra.run.dir")
    if not own_directory:
        main()
        return
    if directory == Path():
        raise ConfigError("hydra.run.dir=.", "a run needs a directory of its own", "name one")
    with claimed(directory, exact=directory_was_typed("hydra.run.dir")) as own:
        sys.argv.append(f"hydra.run.dir={quote_plain(str(own))}")
        main()
        raise_failures()


def sweep(main: Main, jobs: list[DictConfig]) -> None:
    """Run all jobs; one that fails is contained, and told of at the end."""
    directory = directory_of(jobs[0], "hydra.sweep.dir")
    names_of_jobs = list(filter(None, map(subdirectory, jobs)))
    refuse_twins(names_of_jobs)
    for name in names_of_jobs:
        refuse_a_second_run(directory / name, "sweep")
    named = jobs[0].sweep is not None or directory_was_typed("hydra.sweep.dir")
    with claimed(directory, exact=named) as own:
        sys.argv.append(f"hydra.sweep.dir={quote_plain(str(own))}")
        main()
        if FAILURES:
            reason = f"{len(FAILURES)} of {len(jobs)} jobs failed"
            raise MicrostepError(f"sweep {own}", reason, "the lines above say why, and each job's run.json")


def subdirectory(job: DictConfig) -> str | None:
    """Return a job's directory in its sweep; None where only Hydra will know it (`${hydra.job.num}`)."""
    with suppress(OmegaConfBaseException):
        return str(job.hydra.sweep.subdir)
    return None


def refuse_twins(names_of_jobs: list[str]) -> None:
    """Refuse a sweep over what can't change a result: its jobs would be one run."""
    twins = [name for name, times in Counter(names_of_jobs).items() if times > 1]
    if twins:
        reason = "several jobs have this name: they differ in nothing that can change a result"
        raise ConfigError(twins[0], reason, "sweep over something else, or over seed=0,1,…")


def directory_was_typed(key: str) -> bool:
    return any(word.startswith(f"{key}=") for word in sys.argv[1:])


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


def run_directory() -> Path:
    """Return the directory of the job that runs."""
    return Path(HydraConfig.get().runtime.output_dir)


def config_directories() -> list[Path]:
    """Return the directories that the user's own yamls come from: Hydra's search path."""
    sources = HydraConfig.get().runtime.config_sources
    return [Path(source.path) for source in sources if source.schema == "file"]


def choice(group: str) -> str:
    """Return the option chosen for a group."""
    return str(HydraConfig.get().runtime.choices[group])
