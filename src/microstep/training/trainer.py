"""The algorithm: epochs of windows, an evaluation and a checkpoint after each, a report of the best at the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from microstep.components.dataset.workers import loader_errors
from microstep.errors import Stopped
from microstep.run.checkpoints.checkpoints import Checkpoints, CheckpointSchedule
from microstep.run.progress import Progress
from microstep.run.record_logger import find_logs
from microstep.run.weights import WeightsFile
from microstep.training.device import PeakMemory
from microstep.training.evaluation_loop import evaluate, evaluate_and_report
from microstep.training.loaders import Loaders
from microstep.training.monitoring import LoggerCollection, ThroughputMeter, divergence_error
from microstep.types.data import Batch, LoadedWindow, StepResult
from microstep.types.events import EpochReport, Results, SplitResult, WindowReport
from microstep.types.protocols import Metrics, Precision, Scheduler, Step, Task
from microstep.utils.randomness import reseed
from microstep.utils.signals import defer_signals


@dataclass
class Trainer:
    """Trains a model, keeps its checkpoints, reports the best. `build_trainer` makes one from a config."""

    model: nn.Module
    optimizer: Optimizer
    scheduler: Scheduler
    step: Step
    precision: Precision
    task: Task
    loaders: Loaders
    checkpoints: Checkpoints
    logbook: LoggerCollection
    cadence: CheckpointSchedule
    identity: Mapping[str, Any]  #: what run it is, for the checkpoints
    weights: WeightsFile
    run_dir: Path
    epochs: int
    seed: int

    def __post_init__(self) -> None:
        self.progress = Progress()
        self.pace = ThroughputMeter(self.loaders.clock)

    def fit(self) -> Results:
        """Train all epochs that are left, then report the best checkpoint on validation and test.

        A signal lets the window be finished and is raised as `Stopped` once a checkpoint is written.

        Raises:
            Diverged: the loss or its gradient is no longer finite; the checkpoints are those of before.
            StorageError: a checkpoint or a log could not be written; the checkpoints are those of before.
        """
        self.pace.start_run()
        memory = PeakMemory(self.loaders.device)
        with defer_signals(), self.logbook, loader_errors(), self.saved_when_stopped():
            for epoch in self.logbook.epochs(self.progress.epoch + 1, self.epochs):
                self.run_epoch(epoch)
            return self.conclude(memory)

    def run_epoch(self, epoch: int) -> None:
        """Train, validate, log, save."""
        self.train_epoch(epoch)
        val = self.evaluate("val")
        best = self.progress.finish_epoch(epoch, val, self.step.metrics)
        self.log_epoch(val, best)
        if best or epoch == self.epochs or self.cadence.is_due_after_epoch(epoch):
            self.save(best)

    def train_epoch(self, epoch: int) -> None:
        """Take one optimizer step over each of the epoch's windows that are left."""
        self.model.train()
        if not self.progress.window:
            self.step.metrics.reset()
        self.pace.start_epoch(self.progress.samples_seen)
        for window in self.windows(epoch):
            reseed(self.loaders.device, self.seed, epoch, window.number)
            result = self.step(self.model, self.optimizer, window.batches, window.weight)
            self.note(epoch, window, result)
            if result.updated:
                self.scheduler.step()
            if self.cadence.is_due_after_window(self.progress.windows):
                self.save()
        self.pace.end_training(self.progress.samples_seen)

    def windows(self, epoch: int) -> Iterator[LoadedWindow]:
        """Yield the windows that are left of the epoch under a bar."""
        windows, samples = self.loaders.train(epoch, first=self.progress.window), len(self.loaders.splits["train"])
        return self.logbook.windows(windows, epoch, self.progress.epoch_samples, samples, self.step.metrics)

    def batches(self, name: str, metrics: Metrics) -> Iterator[Batch]:
        """Yield a split's batches under a bar."""
        return self.logbook.batches(self.loaders.evaluation(name), name, len(self.loaders.splits[name]), metrics)

    def evaluate(self, name: str) -> dict[str, float]:
        """Return the task's metrics on a split."""
        metrics = self.task.metrics()
        return evaluate(self.model, self.batches(name, metrics), self.precision, self.task, metrics)

    def note(self, epoch: int, window: LoadedWindow, result: StepResult) -> None:
        """Count the window, stop where it shows that the run can't go on, tell the loggers."""
        self.progress.count(window, result, lr=self.optimizer.param_groups[0]["lr"])
        if self.progress.skipped_in_a_row > self.precision.max_skipped:
            raise divergence_error(epoch, window, result, self.precision.name, self.checkpoints.saved_position)
        self.checkpoints.raise_failure()
        if self.logbook.wants(self.progress.windows):
            self.log_window(result)

    def save(self, best: bool = False) -> None:
        """Have a checkpoint written while training goes on."""
        logs = find_logs(self.run_dir)
        sizes = {file.name: file.stat().st_size for file in logs}
        self.checkpoints.save(self.state_dict() | {"logs": sizes}, self.progress, best, logs)
        self.cadence.restart_timer()

    @contextmanager
    def saved_when_stopped(self) -> Iterator[None]:
        """Save where a signal stops the run at a safe moment; leave nothing half written, however it ends."""
        try:
            yield
        except Stopped as stopped:
            if stopped.safe and self.progress.position != self.checkpoints.saved_position:
                self.save()
            raise
        finally:
            self.checkpoints.wait()

    def state_dict(self) -> dict[str, Any]:
        """Return all that a run is made of: tensors and plain values."""
        seconds = self.progress.seconds + self.pace.total_seconds()
        states = {name: part.state_dict() for name, part in self.parts().items()}
        return states | {"progress": asdict(self.progress) | {"seconds": seconds}, **self.identity}

    def load_state_dict(self, state: Mapping[str, Any], progress: Progress) -> None:
        """Take a run up where its checkpoint was made."""
        for name, part in self.parts().items():
            part.load_state_dict(state[name])
        self.progress = progress

    def parts(self) -> dict[str, Any]:
        """Return what has a state."""
        names = ("model", "optimizer", "scheduler", "precision")
        return {name: getattr(self, name) for name in names} | {"metrics": self.step.metrics}

    def log_window(self, result: StepResult) -> None:
        """Tell the loggers of a window; here more than the norm is read from the device."""
        report = WindowReport(
            window=self.progress.windows,
            loss=result.loss.item(),
            lr=self.progress.lr,
            grad_norm=result.grad_norm,
            loss_scale=self.precision.loss_scale(),
            skipped_steps=self.progress.skipped_steps,
            **self.pace.lap(self.progress.samples_seen),
        )
        self.logbook.window(report)

    def log_epoch(self, val: dict[str, float], best: bool) -> None:
        """Tell the loggers of the epoch."""
        report = EpochReport(
            **self.progress.counts(),
            epochs=self.epochs,
            train=self.step.metrics.compute(),
            val=val,
            lr=self.progress.lr,
            samples_per_second=self.pace.samples_per_second,
            seconds=self.pace.epoch_seconds(),
            best=best,
        )
        self.logbook.epoch(report)

    def conclude(self, memory: PeakMemory) -> Results:
        """Report the best checkpoint."""
        seconds = self.progress.seconds + self.pace.total_seconds()
        self.model.load_state_dict(self.checkpoints.load("best")["model"])
        splits = {name: self.report(name) for name in ("val", "test")}
        self.weights.write(self.model, self.progress.best_epoch, splits["val"].metrics)
        counts = self.progress.counts()
        del counts["epoch"]
        results = Results(
            self.run_dir,
            self.progress.best_epoch,
            **counts,
            train_seconds=seconds,
            peak_memory_bytes=memory.bytes(),
            saving=self.checkpoints.saving,
            splits=splits,
        )
        self.logbook.finish(results)
        return results

    def report(self, name: str) -> SplitResult:
        """Evaluate a split and write its report."""
        metrics, directory = self.task.metrics(), self.run_dir / "reports" / name
        split, batches = self.loaders.splits[name], self.batches(name, metrics)
        return SplitResult(
            *evaluate_and_report(self.model, split, batches, self.precision, self.task, metrics, directory)
        )
