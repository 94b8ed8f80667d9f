"""The front door: every job is composed and checked before hydra.main starts, and before torch is imported.

hydra.main alone can't keep the error contract: it exits with 1, prints several lines, and makes a directory first.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import NoReturn

from hydra._internal.utils import get_args_parser  # the very parser that hydra.main will use

from microstep import names, signals
from microstep.composer import Composer, quote
from microstep.errors import ConfigError, MicrostepError, Stopped
from microstep.jobs import raise_failures, summarised
from microstep.page import page
from microstep.places import refuse_odd_places
from microstep.starting import Main, prepared


def launch(main: Main, config_name: str) -> NoReturn:
    """Check the command line, run the hydra.main function, and exit with the contract's code."""
    signals.listen()
    names.register()
    logging.raiseExceptions = False  # on a full disk the log is the least that can't be written
    debugging = os.environ.setdefault("HYDRA_FULL_ERROR", "0") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hydra.main lets exceptions out instead of printing them itself
    try:
        refuse_odd_places(*sys.argv)
        run(main, config_name, Path(sys.argv[0]).resolve().parent / "conf")
        raise_failures()
    except MicrostepError as error:
        fail(str(error), error.exit_code)
    except Stopped as error:
        remedy = f"; {error.remedy}" if error.remedy else ""
        fail(f"stopped by {signal.Signals(error.signum).name}{remedy}", error.exit_code)
    except Exception as error:
        if debugging:
            raise
        fail(f"{summarised(error)}; the traceback is in the run's train.log, or set HYDRA_FULL_ERROR=1", 1)
    sys.exit(0)


def fail(line: str, code: int) -> NoReturn:
    print(f"error: {line}", file=sys.stderr, flush=True)
    sys.exit(code)


def run(main: Main, config_name: str, conf: Path) -> None:
    """Check, then hand over."""
    typed = shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]])
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
    asked = arguments.cfg or arguments.info or arguments.hydra_help or arguments.shell_completion
    if arguments.multirun and asked:
        raise ConfigError("-m", "what is asked for is of one run", "leave it out")
    also = additional(arguments.config_dir)
    sources = [conf] if also is None else [conf, also]
    with Composer.opened(conf, arguments.config_name or config_name, also) as composer:
        if config_name == "train":
            start = prepared(composer, overrides, arguments.multirun, sources, typed)
        else:
            composer.job(overrides)
    if asked or config_name != "train":  # no directory is made
        main()
    else:
        start(main)


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
