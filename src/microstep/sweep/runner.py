"""A sweep from its plan to its end."""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import partial

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig

from microstep.errors import MicrostepError, StorageError
from microstep.run.record import RunRecord
from microstep.sweep.definition import STOP_FILE, Sweep, SweepPlan, write_sweep_file
from microstep.sweep.job import Task, contained
from microstep.sweep.launchers.parallel import run_parallel
from microstep.sweep.launchers.worker import Worker
from microstep.sweep.progress import SweepProgress
from microstep.sweep.reporter import SweepReporter
from microstep.utils.terminal import write_above_bars
from microstep.utils.text import display_path


def run_sweep(sweep: Sweep, task: Task, config: DictConfig, context: HydraContext) -> None:
    """Run what is left of a sweep with the launcher of its config, as `run` does.

    Args:
        task: runs a job, as `contained` calls it.
        config: as Hydra's launchers are given it.
    """
    here = str(config.hydra.launcher._target_).startswith("hydra._internal.")
    job = partial(contained, task)
    function = job if here else Worker(job, sweep.directory)
    launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=function, config=config)
    run_with_launcher(sweep, launcher, here)


def run_with_launcher(sweep: Sweep, launcher: Launcher, in_process: bool) -> None:
    """Run what is left of a sweep.

    A run that fails, is killed or leaves by sys.exit is told of, and the others go on; a signal stops the sweep.

    Args:
        in_process: whether the launcher runs jobs in this process.

    Raises:
        MicrostepError: where not every run is finished, with the command that runs just those again.
        Stopped: once the runs at work have saved.
    """
    (sweep.directory / STOP_FILE).unlink(missing_ok=True)
    plan = make_sweep_plan(sweep)
    write_sweep_file(sweep, plan, {})
    print_plan(sweep, plan)
    teller = SweepReporter(sweep)
    with teller.following(plan.todo) as board:  # where it is stopped STOP stays: what waits in a queue will look for it
        run_planned_jobs(launcher, in_process, plan, board, teller)
        with suppress(StorageError):  # a full disk has been told of
            write_sweep_file(sweep, plan, teller.errors)
    write_above_bars(f"summary: {display_path(sweep.directory / 'summary.html')}", sys.stdout)
    print_unfinished(sweep, plan, teller)


def make_sweep_plan(sweep: Sweep) -> SweepPlan:
    """Return what is to be run; whether a run is finished only its data can tell."""
    if not any(sweep.directory.glob("*/")):
        return SweepPlan(sweep.jobs, {}, {})
    from microstep.sweep.planning import plan_sweep  # imports torch, as the runs themselves do

    return plan_sweep(sweep)


def run_planned_jobs(
    launcher: Launcher, in_process: bool, plan: SweepPlan, progress: SweepProgress, reporter: SweepReporter
) -> None:
    """Run what is to be run, in this process or in the launcher's."""
    if not in_process:
        run_parallel(launcher, plan.todo, progress, reporter)
    elif plan.todo:
        from microstep.sweep.launchers.serial import run_serial

        run_serial(launcher, plan.todo, progress, reporter)


def print_plan(sweep: Sweep, plan: SweepPlan) -> None:
    """Say what is to be run, and what isn't and why."""
    parts = [f"{len(sweep.jobs)} run{'s' * (len(sweep.jobs) > 1)}"]
    parts += [f"{len(plan.finished)} finished already"] if plan.finished else []
    parts += [f"{len(plan.stale)} stale"] if plan.stale else []
    parts += [f"{len(plan.todo)} to do"] if len(plan.todo) < len(sweep.jobs) else []
    write_above_bars(f"sweep {display_path(sweep.directory)}: {', '.join(parts)}", sys.stdout)
    for name, changed in plan.stale.items():
        write_above_bars(
            f"warning: {name} is stale: the {changed} has changed since; redo=stale runs it again", sys.stderr
        )


def print_unfinished(sweep: Sweep, plan: SweepPlan, reporter: SweepReporter) -> None:
    """Say what has failed and why.

    Raises:
        MicrostepError: where something has.
    """
    records = {job.name: RunRecord.read(sweep.place(job)) for job in plan.todo}
    unfinished = [job for job in plan.todo if records[job.name].status != "finished"]
    if not unfinished:
        return
    write_above_bars("\nnot finished:", sys.stdout)
    for job in unfinished:
        error = reporter.errors.get(job.name) or records[job.name].error or "it was not started"
        write_above_bars(f"  {job.name}  {error}", sys.stdout)
    write_above_bars(f"\njust those again:  {sweep.command}\n", sys.stdout)
    reason = f"{len(unfinished)} of {len(sweep.jobs)} runs are not finished"
    raise MicrostepError(f"sweep {display_path(sweep.directory)}", reason, "the command above runs just those again")
