"""Prepares sweeps and processes for the command line. Modules that only these need are imported once they are."""

from contextlib import AbstractContextManager
from functools import partial

from microstep.cli.job import RunSweep
from microstep.config.sweep_jobs import ComposedStudy
from microstep.utils.world import World


def prepare_sweep(study: ComposedStudy | None) -> RunSweep:
    from microstep.sweep.study_runner import build_study, run_sweep

    return partial(run_sweep, None if study is None else build_study(study))


def join_world(world: World) -> AbstractContextManager[None]:
    from microstep.training.helper import joined

    return joined(world)
