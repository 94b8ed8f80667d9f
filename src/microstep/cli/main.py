"""Command line of the programs. Every job is composed and checked before torch is imported or a file is written.

`hydra.main` is not used: for every error it exits with 1, prints several lines, and creates a directory first.
"""

import logging
import os
import shlex
import signal
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from errno import ENAMETOOLONG
from functools import partial
from inspect import cleandoc
from io import TextIOWrapper
from pathlib import Path
from time import strftime
from traceback import format_exc
from typing import Any, NoReturn

from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from microstep.cli import job as jobs
from microstep.cli.help import help_text
from microstep.cli.invocation import SCRIPTS, find_commands, find_start_words
from microstep.cli.job import CommandLine, LoggedError, PrepareSweep
from microstep.cli.paths import check_command_line_paths
from microstep.cli.start import StartFunction, prepare_start
from microstep.config import names
from microstep.config.compose import Composer, translate_error
from microstep.config.overrides import quote_verbatim
from microstep.config.schema import SCHEMAS
from microstep.config.search_path import CONF
from microstep.errors import ConfigError, MicrostepError, Stopped, format_error
from microstep.sweep.job import JobFunction
from microstep.utils import signals
from microstep.utils.json_files import store_text
from microstep.utils.terminal import TerminalState, called, json_alone, log_python_warnings
from microstep.utils.text import display_path
from microstep.utils.world import World, find_world


@dataclass(frozen=True)
class Program:
    """A program on the command line."""

    name: str  #: also of its primary config: `train`, `evaluate` or `compute_stats`
    task: JobFunction  #: runs a job; its docstring introduces the text of `--help`
    prepare_sweep: PrepareSweep | None = None  #: returns what runs the jobs of `-m`
    #: called around a run if torchrun or srun has started several processes
    join_world: Callable[[World], AbstractContextManager[None]] | None = None

    def __call__(self, arguments: list[str] | None = None) -> NoReturn:
        """Check the command line, by default the process's, run it, and exit with 0 or the error's exit code."""
        world = find_world() if self.join_world is not None else None
        if world is not None:
            os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # without C++'s warnings if another process dies
            if world.rank:
                signal.pthread_sigmask(signal.SIG_BLOCK, signals.STOP_SIGNALS)  # until it handles them
        with nullcontext() if world is None or self.join_world is None else self.join_world(world):
            self.run(arguments)

    def run(self, arguments: list[str] | None) -> NoReturn:
        signals.install_signal_handlers()
        if isinstance(sys.stdout, TextIOWrapper):  # the terminal may not be able to show × and →
            sys.stdout.reconfigure(errors="replace")
        log_python_warnings()
        names.register_resolvers()
        logging.raiseExceptions = False  # a log that can't be written, as on a full disk, is no reason to stop
        try:
            check_command_line_paths(*sys.argv)
            if Path(sys.argv[0]).name in SCRIPTS.values():
                sys.path.append(str(Path.cwd()))  # so that users' own modules are found, as by `python -m`
            code = check_and_start(self, sys.argv[1:] if arguments is None else arguments)
        except MicrostepError as error:
            exit_with_error(str(error), error.exit_code)
        except Stopped as error:
            remedy = f"; {error.remedy}" if error.remedy else ""
            exit_with_error(f"stopped by {signal.Signals(error.signum).name}{remedy}", error.exit_code)
        except Exception as error:
            if isinstance(error, OSError) and error.errno == ENAMETOOLONG:  # of a path in the config
                reason = "the name is longer than the file system allows"
                exit_with_error(f"{error.filename}: {reason}; choose a shorter one", ConfigError.exit_code)
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            exit_with_error(format_unexpected(error, self.name), 1)
        sys.exit(code)


def format_unexpected(error: Exception, program: str) -> str:
    """Write the traceback of an unexpected error to a file, and return the error and the file's name in one line."""
    if isinstance(error, LoggedError):
        message, file = format_error(error.__cause__ or error), error.args[0]
    else:
        name = f"errors/{strftime('%Y-%m-%d_%H-%M-%S')}_{program}_{os.getpid()}.txt"
        message, file = format_error(error), store_text(name, format_exc())
    if file is None:
        return f"{message}; its traceback can't be written: set HYDRA_FULL_ERROR=1 to see it"
    return f"{message}; the traceback is in {display_path(file)}, or set HYDRA_FULL_ERROR=1"


def exit_with_error(line: str, code: int) -> NoReturn:
    print(f"error: {line}", file=sys.stderr, flush=True)
    sys.exit(code)


def check_and_start(program: Program, arguments: list[str]) -> Any:
    """Check a command line and run it. Return the task's result: an exit code, or None."""
    flags, conf = parse_command_line(arguments), Path(sys.argv[0]).resolve().parent / "conf"
    words = find_start_words(program.name, arguments)
    TerminalState.commands = find_commands(program.name, words, flags)
    if flags.help:
        introduction = cleandoc(program.task.__doc__ or "").replace(f"python {program.name}.py", called(program.name))
        print(help_text(introduction, conf if (conf / f"{program.name}.yaml").exists() else CONF, program.name))
        return None
    show_only = bool(flags.cfg or flags.info or flags.hydra_help or flags.shell_completion)
    check_flags(flags, program, show_only)
    overrides = [quote_verbatim(override) for override in flags.overrides]
    extra = None if flags.config_dir is None else Path(flags.config_dir)
    with Composer.open(conf, flags.config_name or program.name, extra, program.name) as composer:
        if flags.shell_completion:  # its arguments are no overrides
            return composer.hydra.shell_completion(composer.config_name, overrides)
        check_primary_config(composer, program, overrides)
        if program.prepare_sweep is None:
            job = composer.compose_job(overrides)
            start: StartFunction = partial(jobs.run, program.task, job, composer.loader)
        else:
            typed = shlex.join([*words, *arguments])
            line = CommandLine(composer, overrides, typed, program.task, program.prepare_sweep)
            start = prepare_start(line, flags.multirun)
        if show_only:
            start = partial(show, composer, flags, overrides)
        with json_alone() if flags.json else nullcontext():
            return start()


def check_primary_config(composer: Composer, program: Program, overrides: list[str]) -> None:
    if SCHEMAS[program.name] not in getattr(OmegaConf.get_type(composer.compose_base(overrides)), "__mro__", ()):
        reason, remedy = f"it is no config of {program.name}.py", f"begin its defaults with {program.name}"
        raise ConfigError(f"--config-name {composer.config_name}", reason, remedy)


def check_flags(flags: Namespace, program: Program, show_only: bool) -> None:
    if flags.config_path:
        subject = f"--config-path {flags.config_path}"
        raise ConfigError(subject, "the yamls are in conf/", "add yours by --config-dir")
    if flags.experimental_rerun:
        subject = f"--experimental-rerun {flags.experimental_rerun}"
        raise ConfigError(subject, "it would load a pickle", "resume a run with resume=RUN_DIR")
    if flags.json and program.prepare_sweep and not any(o.startswith(("check=", "replay=")) for o in flags.overrides):
        raise ConfigError("--json", "the results of a run are in its run.json", "add check=, or leave it out")
    if flags.json and show_only:
        raise ConfigError("--json", "the other flag shows a config", "leave one of the two out")
    if flags.multirun and program.prepare_sweep is None:
        raise ConfigError("-m", "only train.py has runs to sweep over", "call this program once for each value")
    if flags.multirun and show_only:
        raise ConfigError("-m", "the other flag shows a single run", "leave it out")
    if flags.resolve and not flags.cfg:
        raise ConfigError("--resolve", "it resolves the output of --cfg", "add --cfg job")
    if flags.config_dir is not None and not Path(flags.config_dir).is_dir():
        raise ConfigError(f"--config-dir {flags.config_dir}", "no such directory", "give one that holds yamls")


def show(composer: Composer, flags: Namespace, overrides: list[str]) -> None:
    hydra, name = composer.hydra, composer.config_name
    try:
        if flags.hydra_help:
            hydra.hydra_help(name, get_args_parser(), flags)
        elif flags.cfg:
            hydra.show_cfg(name, overrides, flags.cfg, flags.package, flags.resolve)
        else:
            hydra.show_info(flags.info, name, overrides)
    except HydraException as error:  # for example of several values, if hydra.mode is MULTIRUN
        raise translate_error(error, overrides) from None


def parse_command_line(arguments: list[str]) -> Namespace:
    parser: ArgumentParser = get_args_parser()

    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a report")

    def refuse(message: str) -> NoReturn:
        raise ConfigError(" ".join(arguments), message, "see --help")

    parser.error = refuse  # type: ignore[method-assign]
    return parser.parse_intermixed_args(arguments)
