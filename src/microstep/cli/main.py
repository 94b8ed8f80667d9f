"""The front door: every job is composed and checked before anything is made, and before torch is imported.

hydra.main alone can't keep the error contract: it exits with 1, prints several lines, and makes a directory first.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from functools import partial
from inspect import cleandoc
from pathlib import Path
from time import strftime
from traceback import format_exc
from typing import Any, NoReturn

from hydra._internal.utils import get_args_parser  # the very parser of hydra.main

from microstep.cli import job as jobs
from microstep.cli.help import help_text
from microstep.cli.job import Logged
from microstep.cli.paths import check_command_line_paths
from microstep.cli.start import CommandLine, RunSweep, StartFunction, prepare_start
from microstep.config import names
from microstep.config.compose import Composer, quote_verbatim
from microstep.config.search_path import CONF
from microstep.errors import ConfigError, MicrostepError, Stopped, format_error
from microstep.sweep.job import Task
from microstep.utils import signals
from microstep.utils.json_files import store_text
from microstep.utils.terminal import SCRIPTS, called
from microstep.utils.text import display_path


@dataclass(frozen=True)
class Program:
    """A program: its name, which is that of its primary config too, and what it does.

    Args:
        name: `train`, `evaluate` or `compute_stats`.
        task: runs a job; its docstring introduces the page of `--help`.
        run_sweep: runs the jobs of `-m`; None if the program has none.
    """

    name: str
    task: Task
    run_sweep: RunSweep | None = None

    def __call__(self, words: list[str] | None = None) -> NoReturn:
        """Check the command line, do what it asks for, and exit with the contract's code.

        Args:
            words: by default all that follow the program's name.
        """
        signals.install_signal_handlers()
        names.register_resolvers()
        logging.raiseExceptions = False  # on a full disk the log is the least that can't be written
        try:
            check_command_line_paths(*sys.argv)
            if Path(sys.argv[0]).name in SCRIPTS.values():
                sys.path.append(str(Path.cwd()))  # a model of one's own is found, as it is by `python -m`
            code = check_and_start(self, sys.argv[1:] if words is None else words)
        except MicrostepError as error:
            exit_with_error(str(error), error.exit_code)
        except Stopped as error:
            remedy = f"; {error.remedy}" if error.remedy else ""
            exit_with_error(f"stopped by {signal.Signals(error.signum).name}{remedy}", error.exit_code)
        except Exception as error:
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            exit_with_error(unexpected(error, self.name), 1)
        sys.exit(code)


def unexpected(error: Exception, program: str) -> str:
    """Return an unexpected error in one line, which says where its traceback is."""
    if isinstance(error, Logged):
        told, file = format_error(error.__cause__ or error), error.args[0]
    else:
        name = f"errors/{strftime('%Y-%m-%d_%H-%M-%S')}_{program}_{os.getpid()}.txt"
        told, file = format_error(error), store_text(name, format_exc())
    if file is None:
        return f"{told}; its traceback can't be written: set HYDRA_FULL_ERROR=1 to see it"
    return f"{told}; the traceback is in {display_path(file)}, or set HYDRA_FULL_ERROR=1"


def exit_with_error(line: str, code: int) -> NoReturn:
    print(f"error: {line}", file=sys.stderr, flush=True)
    sys.exit(code)


def check_and_start(program: Program, words: list[str]) -> Any:
    """Check, then do what is asked for. Return what the task does: an exit code, or None."""
    arguments, conf = parse_command_line(words), Path(sys.argv[0]).resolve().parent / "conf"
    if arguments.help:
        introduction = cleandoc(program.task.__doc__ or "").replace(f"python {program.name}.py", called(program.name))
        print(help_text(introduction, conf if conf.is_dir() else CONF, program.name))
        return None
    refuse_flags(arguments, program)
    overrides = [quote_verbatim(word) for word in arguments.overrides]
    also = get_extra_config_directory(arguments.config_dir)
    with Composer.opened(conf, arguments.config_name or program.name, also, program.name) as composer:
        if arguments.shell_completion:  # its words are no overrides
            return composer.hydra.shell_completion(composer.config_name, overrides)
        if program.run_sweep is None:
            job = composer.job(overrides)
            start: StartFunction = partial(jobs.run, program.task, job, composer.loader)
        else:
            text = f"{called(program.name)} {shlex.join(words)}"
            line = CommandLine(composer, overrides, text, program.task, program.run_sweep)
            start = prepare_start(line, arguments.multirun)
        return None if shows(composer, arguments, overrides) else start()


def refuse_flags(arguments: Namespace, program: Program) -> None:
    """Refuse flags of Hydra's that have no meaning here."""
    if arguments.config_path:
        reason = "the yamls are in conf/"
        raise ConfigError(f"--config-path {arguments.config_path}", reason, "add yours by --config-dir")
    if arguments.experimental_rerun:
        subject = f"--experimental-rerun {arguments.experimental_rerun}"
        raise ConfigError(subject, "it would load a pickle", "resume=RUN_DIR goes on with a run")
    if arguments.multirun and program.run_sweep is None:
        raise ConfigError("-m", "only train.py has runs to sweep over", "call this program once for each value")
    if arguments.multirun and asked(arguments):
        raise ConfigError("-m", "what is asked for is of one run", "leave it out")
    if arguments.resolve and not arguments.cfg:
        raise ConfigError("--resolve", "it resolves what --cfg shows", "add --cfg job")


def asked(arguments: Namespace) -> bool:
    """Say whether something is to be shown, and nothing to be run."""
    return bool(arguments.cfg or arguments.info or arguments.hydra_help or arguments.shell_completion)


def shows(composer: Composer, arguments: Namespace, overrides: list[str]) -> bool:
    """Show what Hydra is asked to, if it is."""
    hydra, name = composer.hydra, composer.config_name
    if arguments.hydra_help:
        hydra.hydra_help(name, get_args_parser(), arguments)
    elif arguments.cfg:
        hydra.show_cfg(name, overrides, arguments.cfg, arguments.package, arguments.resolve)
    elif arguments.info:
        hydra.show_info(arguments.info, name, overrides)
    return asked(arguments)


def parse_command_line(arguments: list[str]) -> Namespace:
    """Return Hydra's own flags and the overrides.

    Raises:
        ConfigError: for a flag that Hydra doesn't have.
    """
    parser: ArgumentParser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise ConfigError(" ".join(arguments), message, "see --help")

    parser.error = refuse  # type: ignore[method-assign]
    return parser.parse_intermixed_args(arguments)


def get_extra_config_directory(directory: str | None) -> Path | None:
    """Return the directory that --config-dir adds to the search path."""
    if directory is not None and not Path(directory).is_dir():
        raise ConfigError(f"--config-dir {directory}", "no such directory", "give one that holds yamls")
    return None if directory is None else Path(directory)
