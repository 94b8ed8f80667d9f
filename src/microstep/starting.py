"""How jobs start: each in a directory of its own, or in that of the run that it goes on with."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from itertools import starmap
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from microstep.checks import place_of, refuse_check_of_a_run, refuse_check_of_a_sweep
from microstep.composer import Composer, quote
from microstep.config import POSITIVE_INT, trusted
from microstep.directories import claimed
from microstep.errors import ConfigError, Stopped
from microstep.files import shown
from microstep.gate import trusting
from microstep.jobs import TAKEN_UP, finished_already, raise_failures
from microstep.overrides import without_hydra
from microstep.owner import owning
from microstep.places import directory_of
from microstep.resumption import AUTO, Resumption, automatic, goes_on, named
from microstep.roster import CURRENT, Job, Sweep

Main = Callable[[], Any]
Start = Callable[[Main], None]


def prepared(
    composer: Composer, overrides: Sequence[str], multirun: bool, sources: Sequence[Path], command: str
) -> Start:
    """Return how the jobs of a command line start, once all of it is checked."""
    if multirun:
        return partial(sweep, jobs=composer.jobs(overrides), typed=command)
    typed: dict[str, Any] = {str(o.key_or_group): o.value() for o in map(composer.parse, overrides)}
    if typed.get("sweep") is not None:
        raise ConfigError(f"sweep={typed['sweep']}", "it names a sweep, and this is one run", "add -m, or leave it out")
    if typed.get("resume") in (None, AUTO):
        return one(composer.job(overrides), sources)
    refuse_check_of_a_run(typed.get("check"))
    directory = Path(str(typed["resume"]))
    if "hydra.run.dir" in typed:
        raise ConfigError(f"resume={directory}", "it names the directory already", "leave hydra.run.dir= out")
    gate = trusting(sources, typed.get("trust") or (), directory)
    return partial(go_on, resumed=named(directory, composer, overrides, gate), words=overrides)


def one(job: DictConfig, sources: Sequence[Path]) -> Start:
    """Return how a job that isn't part of a sweep starts."""
    if job.check is None:
        return partial(single, job=job, sources=sources)
    if job.resume is not None:
        refuse_check_of_a_run(job.check)
    return partial(look, job=job)


def look(main: Main, job: DictConfig) -> None:
    """Look at an experiment instead of training it; what is found goes to a directory of its own."""
    typed = directory_was_typed("hydra.run.dir")
    place = directory_of(job, "hydra.run.dir") if typed else place_of(job)
    with claimed(place, exact=typed, whole=True) as own, owning(own):
        sys.argv.append(f"hydra.run.dir={quote_plain(str(own))}")
        main()
        raise_failures()


def single(main: Main, job: DictConfig, sources: Sequence[Path]) -> None:
    """Run one job, in a new directory or in that of its run that goes on."""
    directory, typed = directory_of(job, "hydra.run.dir"), directory_was_typed("hydra.run.dir")
    if directory == Path():
        raise ConfigError("hydra.run.dir=.", "a run needs a directory of its own", "name one")
    if job.resume == AUTO and not typed:
        raise ConfigError("resume=auto", "each start has a new directory", "name one: hydra.run.dir=DIR")
    if goes_on(job.resume, directory):
        gate = trusting(sources, trusted(job), directory)
        go_on(main, automatic(directory, without_hydra(job), gate), words=())
    else:
        start(main, directory)


def start(main: Main, directory: Path) -> None:
    """Run one job; where its config, its data or its machine won't do, no directory is left behind."""
    with claimed(directory, exact=directory_was_typed("hydra.run.dir")) as own, owning(own):
        sys.argv.append(f"hydra.run.dir={quote_plain(str(own))}")
        with saying(resume_command(own)):
            main()
        raise_failures()


def go_on(main: Main, resumed: Resumption, words: Sequence[str]) -> None:
    """Go on with a run in its own directory; Hydra, which knows of the defaults alone, doesn't see the words."""
    if resumed.finished:
        print(finished_already(resumed.directory))
        return
    with owning(resumed.directory):
        own = set(words) - {word for word in words if word.startswith(("resume=", "hydra"))}
        sys.argv[1:] = [word for word in sys.argv[1:] if word not in own]
        sys.argv.append(f"hydra.run.dir={quote_plain(str(resumed.directory))}")
        sys.argv.append("hydra.output_subdir=null")  # .hydra stays as it is
        TAKEN_UP.append(resumed)
        with saying(resume_command(resumed.directory)):
            main()
        raise_failures()


def resume_command(directory: Path) -> str:
    """Return what goes on with a run."""
    return f"python train.py resume={shlex.quote(shown(directory))} goes on"


@contextmanager
def saying(remedy: str) -> Iterator[None]:
    """Let a signal's line say how to go on."""
    try:
        yield
    except Stopped as stopped:
        stopped.remedy = remedy
        raise


def sweep(main: Main, jobs: list[DictConfig], typed: str) -> None:
    """Run what is left of a sweep; a job that fails is contained, and told of at the end.

    Args:
        typed: the command line.
    """
    directory = directory_of(jobs[0], "hydra.sweep.dir")
    named = jobs[0].sweep is not None or directory_was_typed("hydra.sweep.dir")
    refuse_resuming(jobs[0].resume, named)
    refuse_check_of_a_sweep(jobs[0].check)
    check_launcher(jobs[0])
    listed = tuple(starmap(as_job, enumerate(jobs)))
    refuse_twins([job.name for job in listed])
    with claimed(directory, exact=named) as own, owning(own):
        sys.argv.append(f"hydra.sweep.dir={quote_plain(str(own))}")
        command = typed if named else f"{typed} sweep={own.name}"
        CURRENT.append(Sweep(own, listed, command, jobs[0].redo is not None, jobs[0].progress))
        with saying(f"{command} goes on"):
            main()


def as_job(number: int, composed: DictConfig) -> Job:
    """Return one job of a sweep, whose directory is known from now on."""
    with read_write(composed), open_dict(composed):
        composed.hydra.job.num = composed.hydra.job.id = number
    name = str(directory_of(composed, "hydra.sweep.subdir"))
    overrides = tuple(OmegaConf.to_container(composed.hydra.overrides.task) or ())
    return Job(number, name, tuple(map(str, overrides)), without_hydra(composed))


def check_launcher(job: DictConfig) -> None:
    """Refuse a launcher whose package isn't installed, or a number of runs at once that can't be."""
    launcher, choice = job.hydra.launcher, job.hydra.runtime.choices["hydra/launcher"]
    package = ".".join(str(launcher._target_).split(".")[:2])
    if find_spec(package) is None:
        reason = f"{package.rpartition('.')[2].replace('_', '-')} is not installed"
        raise ConfigError(f"hydra/launcher={choice}", reason, f"pip install -e '.[{choice}]'")
    at_once = launcher.get("n_jobs", 1)
    if type(at_once) is not int or not (at_once == -1 or at_once in POSITIVE_INT):
        reason = "it is no number of runs"
        raise ConfigError(f"hydra.launcher.n_jobs={at_once}", reason, "give at least 1, or -1 for one a core")


def refuse_resuming(resume: str | None, named: bool) -> None:
    """Refuse to resume a sweep otherwise than by its name."""
    if resume not in (None, AUTO):
        raise ConfigError(f"resume={resume}", "it is one run, and -m starts several", "leave -m out, or resume=auto")
    if resume == AUTO and not named:
        raise ConfigError("resume=auto", "each start of a sweep has a new directory", "name it: sweep=NAME")


def refuse_twins(names_of_jobs: list[str]) -> None:
    """Refuse a sweep over what can't change a result: its jobs would be one run."""
    twins = [name for name, times in Counter(names_of_jobs).items() if times > 1]
    if twins:
        reason = "several jobs have this name: they differ in nothing that can change a result"
        raise ConfigError(twins[0], reason, "sweep over something else, or over seed=0,1,…")


def directory_was_typed(key: str) -> bool:
    return any(word.startswith(f"{key}=") for word in sys.argv[1:])


def quote_plain(path: str) -> str:
    """Return a path as one quoted word of Hydra's grammar."""
    return quote(f"run={Path(path).resolve()}").removeprefix("run=")
