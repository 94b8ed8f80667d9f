"""Prepares sweeps and processes for the command line. Modules that need torch are imported once they are needed."""

from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from microstep.cli.job import RunSweep
from microstep.config.sweep_jobs import ComposedStudy
from microstep.utils.world import World


def prepare_sweep(study: ComposedStudy | None) -> RunSweep:
    if study is None:
        return partial(run_sweep, None)
    from microstep.sweep.study_runner import build_study

    return partial(run_sweep, build_study(study))


def run_sweep(*arguments: Any) -> None:
    from microstep.sweep.study_runner import run_sweep  # the summary and the bars are needed only for a sweep

    run_sweep(*arguments)


def join_world(world: World) -> AbstractContextManager[None]:
    from microstep.training.helper import joined

    return joined(world)
