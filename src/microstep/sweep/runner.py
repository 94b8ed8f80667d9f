"""Runs a sweep: plans it, launches its jobs, and reports the runs that have not finished."""

import sys
from contextlib import suppress
from functools import partial

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig

from microstep.errors import MicrostepError, StorageError
from microstep.run.directory import check_left_by_start, was_started_in
from microstep.run.record import RunRecord
from microstep.sweep.definition import STOP_FILE, Sweep, SweepPlan, write_sweep_file
from microstep.sweep.job import JobFunction, run_job
from microstep.sweep.launchers.parallel import run_parallel
from microstep.sweep.launchers.worker import Worker
from microstep.sweep.progress import SweepProgress
from microstep.sweep.reporter import SweepReporter
from microstep.utils.imports import imports_without_gc
from microstep.utils.terminal import write_above_bars
from microstep.utils.text import display_path, format_count
from microstep.utils.world import list_gpus


def run_sweep(sweep: Sweep, task: JobFunction, config: DictConfig, context: HydraContext) -> None:
    """Run the unfinished jobs of a sweep with the launcher of its config.

    The sweep continues if a run fails, is killed or calls `sys.exit`; a signal stops it.

    Raises:
        MicrostepError: if a run has not finished. The command that runs the unfinished ones again is printed before it.
        Stopped: after a signal, once the active runs have saved.
    """
    in_process = str(config.hydra.launcher._target_).startswith("hydra._internal.")
    gpus = list_gpus() if config.hydra.launcher._target_.endswith(".JoblibLauncher") else ()
    function = partial(run_job, task) if in_process else Worker(partial(run_job, task), sweep.directory, gpus)
    launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=function, config=config)
    (sweep.directory / STOP_FILE).unlink(missing_ok=True)
    plan = make_sweep_plan(sweep)
    for job in plan.jobs_to_run:
        check_left_by_start(sweep.get_directory(job), was_started_in)
    write_sweep_file(sweep, plan, {})
    print_plan(sweep, plan)
    reporter = SweepReporter(sweep)
    with reporter.follow_jobs(plan.jobs_to_run) as progress:  # a signal leaves STOP_FILE, for jobs that are queued
        run_planned_jobs(launcher, in_process, plan, progress, reporter)
        with suppress(StorageError):  # the summary warns of a full disk
            write_sweep_file(sweep, plan, reporter.errors)
    write_above_bars(f"summary: {display_path(sweep.directory / 'summary.html')}", sys.stdout)
    print_unfinished(sweep, plan, reporter)


def make_sweep_plan(sweep: Sweep) -> SweepPlan:
    """Return the plan of a sweep. Imports torch only if the directory has runs to compare with."""
    if not any(sweep.directory.glob("*/")):
        return SweepPlan(sweep.jobs, {}, {})
    from microstep.sweep.planning import plan_sweep

    return plan_sweep(sweep)


def run_planned_jobs(
    launcher: Launcher, in_process: bool, plan: SweepPlan, progress: SweepProgress, reporter: SweepReporter
) -> None:
    if not in_process:
        run_parallel(launcher, plan.jobs_to_run, progress, reporter)
    elif plan.jobs_to_run:
        with imports_without_gc():
            import microstep.components.task.classification.report  # noqa: F401  # a run imports it late
            from microstep.sweep.launchers.serial import run_serial  # imports torch

        run_serial(launcher, plan.jobs_to_run, progress, reporter)


def print_plan(sweep: Sweep, plan: SweepPlan) -> None:
    parts = [format_count(len(sweep.jobs), "run")]
    parts += [f"{len(plan.finished)} finished already"] if plan.finished else []
    parts += [f"{len(plan.stale)} stale"] if plan.stale else []
    parts += [f"{len(plan.jobs_to_run)} to do"] if len(plan.jobs_to_run) < len(sweep.jobs) else []
    write_above_bars(f"sweep {display_path(sweep.directory)}: {', '.join(parts)}", sys.stdout)
    for name, part in plan.stale.items():
        text = f"warning: {name} is stale: the {part} has changed since; redo=stale runs it again"
        write_above_bars(text, sys.stderr)


def print_unfinished(sweep: Sweep, plan: SweepPlan, reporter: SweepReporter) -> None:
    records = {job.name: RunRecord.read(sweep.get_directory(job)) for job in plan.jobs_to_run}
    unfinished = [name for name, record in records.items() if record.status != "finished"]
    if not unfinished:
        return
    write_above_bars("\nnot finished:", sys.stdout)
    for name in unfinished:
        error = reporter.errors.get(name) or records[name].error or "it was not started"
        write_above_bars(f"  {name}  {error}", sys.stdout)
    write_above_bars(f"\nto run only those again:  {sweep.command}\n", sys.stdout)
    reason = f"{len(unfinished)} of {len(sweep.jobs)} runs are not finished"
    raise MicrostepError(f"sweep {display_path(sweep.directory)}", reason, "the command above runs only those again")
