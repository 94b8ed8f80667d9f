"""Finds the commands that start the programs in the way in which this one was started."""

import os
import shlex
import shutil
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

SUBCOMMANDS = {"train": "train", "evaluate": "evaluate", "compute_stats": "stats"}
SCRIPTS = {program: f"microstep-{subcommand}" for program, subcommand in SUBCOMMANDS.items()}
KEPT_KEYS = {"hydra.searchpath", "trust"}  #: keys without which a command may not find or build a run's components


def find_start_words(program: str, arguments: Sequence[str]) -> list[str]:
    """Return the typed words before the arguments, such as `python train.py` or `python -m microstep train`."""
    count = len(sys.orig_argv) - len(arguments)
    if sys.orig_argv[count:] != list(arguments):  # the program was called from Python
        return ["python", "-m", "microstep", SUBCOMMANDS[program]]
    last = Path(sys.orig_argv[count - 1])
    if last.name in SCRIPTS.values():  # a script whose first line names the interpreter
        return [last.name if shutil.which(last.name) == str(last) else str(last)]
    return sys.orig_argv[:count]


def find_commands(program: str, words: Sequence[str], flags: Namespace) -> dict[str, str]:
    """Return the command of each program, with the typed flags that a later command needs, too."""
    kept = ["--config-dir", flags.config_dir] if flags.config_dir else []
    kept += [word for word in flags.overrides if word.lstrip("+").partition("=")[0] in KEPT_KEYS]
    named = ["--config-name", flags.config_name] if flags.config_name else []
    starts = {other: find_other_program(other, program, words, not flags.config_dir) for other in SUBCOMMANDS}
    return {name: shlex.join([*start, *kept]) for name, start in (starts | {program: [*words, *named]}).items()}


def find_other_program(other: str, program: str, words: Sequence[str], needs_conf: bool) -> list[str]:
    """Return the words that start another program: the one beside this one if there is one, else the package's."""
    *interpreter, last = words
    script = Path() if interpreter[-1:] == ["-c"] else Path(last)
    if script.name in SCRIPTS.values():
        return [str(script.with_name(SCRIPTS[other]))]
    if script.name == f"{program}.py" and script.with_name(f"{other}.py").is_file():
        return [*interpreter, str(script.with_name(f"{other}.py"))]
    packaged = [interpreter[0], "-m", "microstep", SUBCOMMANDS[other]]
    if not script.is_file() or script.resolve().parent == Path.cwd():  # then its modules and ./conf are found
        return packaged
    path = os.pathsep.join(filter(None, (str(script.resolve().parent), os.environ.get("PYTHONPATH"))))
    conf = script.with_name("conf")
    return ["env", f"PYTHONPATH={path}", *packaged, *(["--config-dir", str(conf)] * (needs_conf and conf.is_dir()))]
