"""Starts a sweep: its jobs are composed and checked, or those of a study as it chooses them."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import starmap
from pathlib import Path

from hydra.core.plugins import Plugins
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from microstep.cli.job import CommandLine, multirun
from microstep.cli.paths import get_hydra_directory
from microstep.config.compose import Composer
from microstep.config.overrides import drop_hydra_node, expand_repeats, quote_verbatim
from microstep.config.sweep_jobs import ComposedStudy, compose_jobs, compose_study, compose_trial, lists_its_jobs
from microstep.config.validation import check_launcher, check_unique_names, refuse_check
from microstep.errors import ConfigError, Stopped
from microstep.run.directory import new_directory
from microstep.run.resume import AUTO_RESUME
from microstep.sweep.decision import Decision, plan_seeds
from microstep.sweep.definition import Job, Sweep, is_left_by_sweep, rename_jobs
from microstep.sweep.job import run_for_objective
from microstep.utils.terminal import write_above_bars


@contextmanager
def remedy_on_stop(remedy: str) -> Iterator[None]:
    try:
        yield
    except Stopped as stopped:
        stopped.remedy = remedy
        raise


def prepare_sweep(line: CommandLine) -> Callable[[], None]:
    """Return a function that starts a sweep. All of its jobs are composed and checked before; of a study, examples."""
    line = replace(line, overrides=expand_repeats(line.overrides))
    study = compose_study(line.composer, line.overrides)
    configs = compose_jobs(line.composer, line.overrides) if study is None else study.examples
    return partial(start_sweep, line, configs, study)


def start_sweep(line: CommandLine, configs: list[DictConfig], study: ComposedStudy | None) -> None:
    """Run the unfinished jobs of a sweep. Failures of jobs are reported at the end."""
    first = configs[0]
    if "hydra.run.dir" in line.typed:
        reason = "-m gives each run a directory of its own"
        raise ConfigError(f"hydra.run.dir={first.hydra.run.dir}", reason, "name the sweep: sweep=NAME")
    directory = get_hydra_directory(first, "hydra.sweep.dir")
    named = first.sweep is not None or "hydra.sweep.dir" in line.typed
    check_sweep_resume(first.resume, named)
    if first.replay is not None:
        raise ConfigError(f"replay={first.replay}", "it is one step of one run, and -m starts several", "leave -m out")
    refuse_check(first.check, "it examines one experiment, and -m starts several", "leave -m out")
    check_launcher(first)
    named_in = directory if named and "hydra.sweep.subdir" not in line.typed else None
    jobs = make_jobs(configs if study is None else (), named_in)
    check_unique_names([job.name for job in jobs])
    make_study_jobs = partial(compose_trials, line.composer, study, named_in)
    if study is not None and study.decides and study.settings.plan:
        if not named:
            raise ConfigError("decide.plan=true", "it reads the pairs of a sweep", "name one: sweep=NAME")
        write_above_bars(plan_seeds(Decision(study.settings, study.space), directory, make_study_jobs), sys.stdout)
        return
    run_sweep = line.prepare_sweep(study)
    with new_directory(directory, named, recognizes=is_left_by_sweep) as created:
        command = line.text if named else f"{line.text} sweep={created.name}"
        elsewhere = not {"_internal", "hydra_joblib_launcher"} & {*str(first.hydra.launcher._target_).split(".")}
        sweep = Sweep(created, jobs, command, first.redo is not None, first.progress, elsewhere)
        sweep_dir = quote_verbatim(f"hydra.sweep.dir={created.resolve()}")
        overrides = [*line.overrides, sweep_dir, "hydra.mode=MULTIRUN"]
        config = line.composer.compose_unchecked(overrides, RunMode.MULTIRUN)
        with remedy_on_stop(f"resume it with {command}"), multirun(config, line.composer.loader) as context:
            if study is not None or lists_its_jobs(config.hydra.sweeper):
                run_sweep(sweep, line.task, config, context, make_study_jobs)
            else:  # another sweeper of Hydra's starts all of its jobs, and stops at the first failure
                objective = partial(run_for_objective, line.task)
                instantiate = Plugins.instance().instantiate_sweeper
                sweeper = instantiate(hydra_context=context, task_function=objective, config=config)
                sweeper.sweep(arguments=list(config.hydra.overrides.task))


def make_jobs(configs: Iterable[DictConfig], directory: Path | None) -> tuple[Job, ...]:
    """Return the jobs of a sweep; in a directory, under the names that earlier commands gave them."""
    jobs = tuple(starmap(make_job, enumerate(configs)))
    return jobs if directory is None else rename_jobs(jobs, directory)


def compose_trials(
    composer: Composer, study: ComposedStudy | None, directory: Path | None, overrides: Iterable[Sequence[str]]
) -> tuple[Job, ...]:
    configs = [compose_trial(composer, study.space, words) for words in overrides] if study else ()
    return make_jobs(configs, directory)


def make_job(number: int, config: DictConfig) -> Job:
    with read_write(config), open_dict(config):
        config.hydra.job.num = config.hydra.job.id = number
    name = str(get_hydra_directory(config, "hydra.sweep.subdir"))
    overrides = tuple(OmegaConf.to_container(config.hydra.overrides.task) or ())
    return Job(number, name, tuple(map(str, overrides)), drop_hydra_node(config))


def check_sweep_resume(resume: str | None, named: bool) -> None:
    if resume not in (None, AUTO_RESUME):
        raise ConfigError(f"resume={resume}", "it is one run, and -m starts several", "leave -m out, or resume=auto")
    if resume == AUTO_RESUME and not named:
        raise ConfigError("resume=auto", "each start of a sweep has a new directory", "name it: sweep=NAME")
