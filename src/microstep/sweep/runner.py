"""Runs a sweep: plans it, launches its jobs, and reports the runs that have not finished."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig

from microstep.errors import MicrostepError, StorageError, format_error
from microstep.run.directory import check_left_by_start, was_started_in
from microstep.run.record import RunRecord
from microstep.sweep.definition import STOP_FILE, Job, Sweep, SweepPlan, write_sweep_file
from microstep.sweep.job import JobFunction, run_job
from microstep.sweep.launchers.parallel import run_parallel
from microstep.sweep.launchers.worker import Worker
from microstep.sweep.progress import SweepProgress
from microstep.sweep.reporter import SweepReporter
from microstep.utils.imports import imports_without_gc
from microstep.utils.terminal import write_above_bars
from microstep.utils.text import display_path, format_count
from microstep.utils.world import list_gpus

if TYPE_CHECKING:
    from microstep.sweep.planning import ExperimentHashes


@dataclass
class SweepRunner:
    """Plans and runs the jobs of a sweep, with the launcher of its config."""

    reporter: SweepReporter
    task: JobFunction
    config: DictConfig
    context: HydraContext
    hashes: "ExperimentHashes | None" = None  #: so that data are fingerprinted once

    @cached_property
    def in_process(self) -> bool:
        return str(self.config.hydra.launcher._target_).startswith("hydra._internal.")

    def run_listed(self, sweep: Sweep) -> None:
        """Run the unfinished jobs of a sweep. It continues if a run fails, is killed or calls `sys.exit`.

        Raises:
            MicrostepError: if a run has not finished. The command that runs it again is printed before.
            Stopped: after a signal, once the active runs have saved.
        """
        self.make_launcher(sweep)  # one that can't be made has changed nothing
        plan = self.plan(sweep)
        self.prepare(sweep, plan)
        print_plan(sweep, plan)
        with self.reporter.follow_jobs(plan.jobs_to_run, len(sweep.jobs)) as progress:
            self.run(sweep, plan, progress)
        print_summary_path(sweep)
        print_unfinished(sweep, plan, self.reporter)

    def plan(self, sweep: Sweep) -> SweepPlan:
        """Return the plan of a sweep. Imports torch only if the directory has runs to compare with."""
        if not any(sweep.directory.glob("*/")):
            return SweepPlan(sweep.jobs, {}, {})
        from microstep.sweep.planning import ExperimentHashes, plan_sweep

        self.hashes = self.hashes or ExperimentHashes(sweep.elsewhere)
        return plan_sweep(sweep, self.hashes)

    def run(self, sweep: Sweep, plan: SweepPlan, progress: SweepProgress) -> None:
        """Run the planned jobs. A signal leaves STOP_FILE, for jobs that are queued."""
        self.launch(self.make_launcher(sweep), plan.jobs_to_run, progress)
        with suppress(StorageError):  # the summary warns of a full disk
            write_sweep_file(sweep, plan, self.reporter.errors)
        if not sweep.is_study and any("dataset.fold=" in word for job in sweep.jobs for word in job.overrides):
            self.pool_folds(sweep)

    def launch(self, launcher: Launcher, jobs: Sequence[Job], progress: SweepProgress) -> None:
        if not self.in_process:
            run_parallel(launcher, jobs, progress, self.reporter)
        elif jobs:
            with imports_without_gc():
                import microstep.components.task.classification.report  # noqa: F401  # a run imports it late
                from microstep.sweep.launchers.serial import run_serial  # imports torch

            run_serial(launcher, jobs, progress, self.reporter)

    def pool_folds(self, sweep: Sweep) -> None:
        from microstep.sweep.out_of_fold import write_out_of_fold  # imports torch

        try:
            write_out_of_fold(sweep.directory)
        except MicrostepError as error:
            self.reporter.warn_once(f"no out-of-fold report was written: {format_error(error)}")

    def prepare(self, sweep: Sweep, plan: SweepPlan) -> None:
        (sweep.directory / STOP_FILE).unlink(missing_ok=True)
        for job in plan.jobs_to_run:
            check_left_by_start(sweep.get_directory(job), was_started_in)
        write_sweep_file(sweep, plan, {})

    def make_launcher(self, sweep: Sweep) -> Launcher:
        is_joblib = self.config.hydra.launcher._target_.endswith(".JoblibLauncher")
        function: Any = partial(run_job, partial(self.task, **sweep.settings))
        if not self.in_process:
            function = Worker(function, sweep.directory, list_gpus() if is_joblib else ())
        make = Plugins.instance().instantiate_launcher
        return make(hydra_context=self.context, task_function=function, config=self.config)


def print_summary_path(sweep: Sweep) -> None:
    write_above_bars(f"summary: {display_path(sweep.directory / 'summary.html')}", sys.stdout)


def print_plan(sweep: Sweep, plan: SweepPlan) -> None:
    parts = [format_count(len(sweep.jobs), "run")]
    parts += [f"{len(plan.finished)} finished already"] if plan.finished else []
    parts += [f"{len(plan.stale)} stale"] if plan.stale else []
    parts += [f"{len(plan.jobs_to_run)} to do"] if len(plan.jobs_to_run) < len(sweep.jobs) else []
    write_above_bars(f"sweep {display_path(sweep.directory)}: {', '.join(parts)}", sys.stdout)
    print_stale(plan)


def print_stale(plan: SweepPlan) -> None:
    for name, part in plan.stale.items():
        text = f"warning: {name} is stale: the {part} has changed since; redo=stale runs it again"
        write_above_bars(text, sys.stderr)


def print_unfinished(sweep: Sweep, plan: SweepPlan, reporter: SweepReporter) -> None:
    records = {job.name: RunRecord.read(sweep.get_directory(job)) for job in plan.jobs_to_run}
    unfinished = [name for name, record in records.items() if not sweep.has_ended(record)]
    if not unfinished:
        return
    write_above_bars("\nnot finished:", sys.stdout)
    for name in unfinished:
        error = reporter.errors.get(name) or records[name].error or "it was not started"
        write_above_bars(f"  {name}  {error}", sys.stdout)
    write_above_bars(f"\nto run only those again:  {sweep.command}\n", sys.stdout)
    reason = f"{len(unfinished)} of {len(sweep.jobs)} runs are not finished"
    raise MicrostepError(f"sweep {display_path(sweep.directory)}", reason, "the command above runs only those again")
