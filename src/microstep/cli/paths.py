"""Checks the paths of a command line and resolves the directory of a job."""

from pathlib import Path
from time import strftime

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from microstep.errors import ConfigError
from microstep.utils.files import expand_home


def check_command_line_paths(program: str, *arguments: str) -> None:
    """Check that the working directory exists, that it and the program's have no `${`, and that all is UTF-8."""
    for argument in arguments:
        check_utf8(argument, argument)
    try:
        here = str(Path.cwd())
    except OSError as error:
        reason = error.strerror or "it can't be read"
        raise ConfigError("the working directory", reason, "change to another directory") from None
    for path in (here, str(Path(here, program).resolve().parent)):
        check_utf8("the working directory" if path == here else "the program's directory", path)
        check_no_interpolation(path, path)


def check_utf8(subject: str, text: str) -> None:
    """Raise ConfigError for text with bytes that are not UTF-8: yaml, JSON and TensorBoard can't hold them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        named = text if subject == text else f"{subject} {text}"
        raise ConfigError(named, "it has bytes that are not UTF-8", "rename it, or name another") from None


def check_no_interpolation(subject: str, path: str) -> None:
    if "${" in path:
        raise ConfigError(subject, "${ in a directory's name is a reference to Hydra", "choose another directory")


def get_hydra_directory(job: DictConfig, key: str) -> Path:
    """Return the directory that a key of Hydra's node names. Its name must be UTF-8 without `${`."""
    try:
        path = str(OmegaConf.select(job, key, throw_on_missing=True))
    except OmegaConfBaseException as error:
        raise ConfigError(key, f"can't be resolved: {str(error).splitlines()[0]}", "correct the reference") from None
    check_utf8(key, path)  # the environment may hold bytes that were not typed
    check_no_interpolation(f"{key}={path}", path)
    return Path(path if key == "hydra.sweep.subdir" else expand_home(path))


def get_check_directory(job: DictConfig, subject: str = "") -> Path:
    choices = job.hydra.runtime.choices
    name = subject or f"{job.check}_{choices.dataset}_{choices.model}"
    return Path("outputs", "checks", f"{strftime('%Y-%m-%d_%H-%M-%S')}_{name}")
