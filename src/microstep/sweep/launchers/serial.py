"""Runs the jobs of a sweep one after the other in this process."""

from collections.abc import Sequence

from hydra.plugins.launcher import Launcher

from microstep.components.dataset.sharing import share_datasets
from microstep.errors import format_error
from microstep.sweep.definition import Job
from microstep.sweep.launchers.isolation import isolate_job
from microstep.sweep.progress import SweepProgress
from microstep.sweep.reporter import JobOutcome, SweepReporter, get_launcher_overrides, to_job_outcome
from microstep.utils.terminal import silenced


def run_serial(launcher: Launcher, jobs: Sequence[Job], progress: SweepProgress, reporter: SweepReporter) -> None:
    """Run jobs one after the other in this process. They share loaded data and nothing else."""
    with share_datasets(), progress.update_in_background(progress.redraw):
        for job in jobs:
            with isolate_job(), silenced() as warnings:
                error = launch_job(launcher, job)
            reporter.record_outcome(job, JobOutcome.of(error, warnings))
            progress.update()


def launch_job(launcher: Launcher, job: Job) -> str | None:
    try:
        (returned,) = launcher.launch([get_launcher_overrides(job)], job.number)
        return to_job_outcome(returned.return_value).error
    except Exception as error:  # for example a log file that can't be opened
        return format_error(error)
