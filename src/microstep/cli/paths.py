"""Checks the paths of a command line and resolves the directory of a job."""

from __future__ import annotations

from pathlib import Path
from time import strftime

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from microstep.errors import ConfigError


def check_command_line_paths(program: str, *words: str) -> None:
    """Refuse bytes that aren't UTF-8 on the command line, and a working directory or a program that lies badly.

    Raises:
        ConfigError: naming the word or the directory.
    """
    for word in words:
        check_utf8(word, word)
    here = get_working_directory()
    for path in (here, str(Path(here, program).resolve().parent)):
        check_utf8("the working directory" if path == here else "the program's directory", path)
        check_no_interpolation(path, path)


def get_working_directory() -> str:
    """Return the working directory, which somebody may have removed."""
    try:
        return str(Path.cwd())
    except OSError as error:
        reason = error.strerror or "it can't be read"
        raise ConfigError("the working directory", reason, "change to another directory") from None


def check_utf8(subject: str, text: str) -> None:
    """Refuse text with bytes that aren't UTF-8: yaml, JSON and TensorBoard can't hold them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        named = text if subject == text else f"{subject} {text}"
        raise ConfigError(named, "it has bytes that are not UTF-8", "rename it, or name another") from None


def check_no_interpolation(subject: str, path: str) -> None:
    """Refuse a directory whose name reads like a reference: Hydra would look for the key."""
    if "${" in path:
        raise ConfigError(subject, "${ in a directory's name is a reference to Hydra", "choose another directory")


def get_hydra_directory(job: DictConfig, key: str) -> Path:
    """Return the directory that a key of Hydra's node names.

    Raises:
        ConfigError: where a reference in it leads nowhere, or its name reads like one.
    """
    try:
        named = str(OmegaConf.select(job, key, throw_on_missing=True))
    except OmegaConfBaseException as error:
        raise ConfigError(key, f"can't be resolved: {str(error).splitlines()[0]}", "mend the reference") from None
    check_utf8(key, named)  # a reference to the environment may bring what nobody typed
    check_no_interpolation(f"{key}={named}", named)
    return Path(named)


def get_check_directory(job: DictConfig) -> Path:
    """Return where a check's files go, unless the command line says otherwise."""
    choices = job.hydra.runtime.choices
    name = f"{strftime('%Y-%m-%d_%H-%M-%S')}_{job.check}_{choices.dataset}_{choices.model}"
    return Path("outputs", "checks", name)
