"""Runs a study: a sweep whose runs are chosen by the results of earlier ones."""

import sys
from dataclasses import replace
from importlib.util import find_spec

from hydra.types import HydraContext
from omegaconf import DictConfig

from microstep.config.sweep_jobs import ComposedStudy
from microstep.errors import ConfigError, MicrostepError
from microstep.run.saved_run import SavedRun
from microstep.sweep.decision import Decision
from microstep.sweep.definition import MakeJobs, Study, Sweep, SweepPlan, write_sweep_file
from microstep.sweep.job import JobFunction
from microstep.sweep.progress import SweepProgress
from microstep.sweep.reporter import SweepReporter
from microstep.sweep.runner import SweepRunner, print_stale, print_summary_path, print_unfinished
from microstep.utils.terminal import write_above_bars
from microstep.utils.text import display_path, format_count


class StudyRunner:
    """Runs the generations of a study, one after the other. A repeated command skips the runs that have ended."""

    def __init__(self, sweep: Sweep, study: Study, make_jobs: MakeJobs, runner: SweepRunner) -> None:
        self.sweep, self.study, self.make_jobs, self.runner = sweep, study, make_jobs, runner
        self.order: list[str] = []  #: names of the runs, in the order of the trials; one may occur twice
        self.skipped = 0  #: runs found finished, which no line has told yet

    def run(self) -> None:
        """Run the study to its end.

        Raises:
            MicrostepError: if a run has not ended, so that the study can't go on. A run that diverged has.
            Stopped: after a signal, once the active runs have saved.
        """
        write_above_bars(f"sweep {display_path(self.sweep.directory)}: {self.study.title}", sys.stdout)
        with self.runner.reporter.follow_jobs((), self.study.most_jobs) as progress:
            failed = self.run_generations(progress)
        self.print_skipped()
        print_summary_path(self.sweep)
        if failed is not None:
            raise_unfinished(*failed, self.runner)
        write_above_bars(self.study.conclude(), sys.stdout)

    def run_generations(self, progress: SweepProgress) -> tuple[Sweep, SweepPlan] | None:
        """Run all generations. Return the one that has runs without a result; None if there is none."""
        while asked := self.make_jobs(self.study.ask()):
            jobs = tuple({job.name: job for job in asked}.values())  # the same values may be proposed twice
            generation = replace(self.sweep, jobs=jobs, settings=self.study.settings)
            plan = self.runner.plan(generation)
            names = [plan.finished.get(job.name, job.name) for job in asked]
            self.skipped += len({*plan.finished.values()} - {*self.order})  # a trial may be proposed again
            self.order += names
            self.run_generation(self.describe(generation), plan, progress)
            runs = [SavedRun.read(self.sweep.directory / name) for name in names]
            if plan.stale or not all(run.record.is_result for run in runs):
                return generation, plan
            if known := self.study.tell(runs):
                write_above_bars(known, sys.stdout)
        write_sweep_file(self.describe(generation), plan, self.runner.reporter.errors)  # with the last results
        return None

    def describe(self, generation: Sweep) -> Sweep:
        return replace(generation, study={**self.study.description, "order": self.order})

    def run_generation(self, generation: Sweep, plan: SweepPlan, progress: SweepProgress) -> None:
        self.runner.prepare(generation, plan)
        progress.skip(len(generation.jobs) - len(plan.jobs_to_run))
        if plan.jobs_to_run:
            self.print_skipped()
            progress.expect_jobs(plan.jobs_to_run)
            self.runner.run(generation, plan, progress)

    def print_skipped(self) -> None:
        if self.skipped:
            write_above_bars(f"{format_count(self.skipped, 'run')} finished already", sys.stdout)
        self.skipped = 0


def raise_unfinished(generation: Sweep, plan: SweepPlan, runner: SweepRunner) -> None:
    print_stale(plan)
    print_unfinished(generation, plan, runner.reporter)
    reason = f"{format_count(len(plan.stale), 'run')} of the study is stale"
    raise MicrostepError(f"sweep {display_path(generation.directory)}", reason, "redo=stale runs it again")


def build_study(composed: ComposedStudy) -> Study:
    """Return the study of a command line. Raise ConfigError if it is a search and Optuna is missing."""
    if composed.decides:
        return Decision(composed.settings, composed.space)
    if find_spec("optuna") is None:
        raise ConfigError(f"search={composed.settings.sampler}", "Optuna is not installed", "pip install optuna")
    from microstep.sweep.search import build_search

    return build_search(composed)


def run_sweep(
    study: Study | None, sweep: Sweep, task: JobFunction, config: DictConfig, context: HydraContext, make_jobs: MakeJobs
) -> None:
    sweep = replace(sweep, is_study=study is not None)
    runner = SweepRunner(SweepReporter(sweep), task, config, context)
    if study is None:
        runner.run_listed(sweep)
    else:
        StudyRunner(sweep, study, make_jobs, runner).run()
