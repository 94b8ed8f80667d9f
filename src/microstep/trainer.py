"""The algorithm: epochs of windows, an evaluation and a checkpoint after each, a report of the best at the end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from microstep.checkpoint import Checkpoints
from microstep.dataset.workers import explained
from microstep.errors import Diverged
from microstep.evaluation import evaluate, evaluate_and_report
from microstep.export import WeightsFile
from microstep.loaders import Loaders
from microstep.logger import EpochReport, Logbook, Results, SplitResult, WindowReport
from microstep.pace import Pace
from microstep.progress import Progress
from microstep.randomness import reseed
from microstep.signals import deferred
from microstep.types import Batch, LoadedWindow, Metrics, Precision, Scheduler, Step, StepResult, Task


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
    logbook: Logbook
    weights: WeightsFile
    run_dir: Path
    epochs: int
    seed: int

    def __post_init__(self) -> None:
        self.progress = Progress()
        self.lr = 0.0
        self.pace = Pace(self.loaders.clock)

    def fit(self) -> Results:
        """Train all epochs, then report the best checkpoint on validation and test.

        Raises:
            Diverged: the gradient is no longer finite; the checkpoints are those of the epochs before.
        """
        with deferred(), self.logbook, explained():
            for epoch in self.logbook.epochs(self.progress.epoch + 1, self.epochs):
                self.run_epoch(epoch)
            return self.conclude()

    def run_epoch(self, epoch: int) -> None:
        """Train, validate, save, log."""
        self.train_epoch(epoch)
        val = self.evaluate("val")
        best = self.progress.finish_epoch(epoch, val, self.step.metrics)
        self.save(best)
        self.log_epoch(val, best)

    def train_epoch(self, epoch: int) -> None:
        """Take one optimizer step over each of the epoch's windows."""
        self.model.train()
        self.step.metrics.reset()
        self.pace.start_epoch()
        for window in self.windows(epoch):
            reseed(self.loaders.device, self.seed, epoch, window.number)
            result = self.step(self.model, self.optimizer, window.batches, window.weight)
            self.note(epoch, window, result)
            if result.updated:
                self.scheduler.step()
        self.pace.end_training(self.progress.samples_seen)

    def windows(self, epoch: int) -> Iterator[LoadedWindow]:
        """Yield the epoch's windows under a bar."""
        samples = len(self.loaders.splits["train"])
        return self.logbook.windows(self.loaders.train(epoch), epoch, samples, self.step.metrics)

    def batches(self, name: str, metrics: Metrics) -> Iterator[Batch]:
        """Yield a split's batches under a bar."""
        return self.logbook.batches(self.loaders.evaluation(name), name, len(self.loaders.splits[name]), metrics)

    def evaluate(self, name: str) -> dict[str, float]:
        """Return the task's metrics on a split."""
        metrics = self.task.metrics()
        return evaluate(self.model, self.batches(name, metrics), self.precision, self.task, metrics)

    def note(self, epoch: int, window: LoadedWindow, result: StepResult) -> None:
        """Count the window, stop where it shows that the run has diverged, tell the loggers."""
        self.progress.count(window, result)
        self.stop_if_diverged(epoch, result)
        self.lr = self.optimizer.param_groups[0]["lr"]  # the rate of this step, not of the next
        if self.logbook.wants(self.progress.windows):
            self.log_window(result)

    def stop_if_diverged(self, epoch: int, result: StepResult) -> None:
        """Raise where a step was skipped that the precision doesn't allow to be."""
        if self.progress.skipped_in_a_row > self.precision.max_skipped:
            where = f"epoch {epoch}, step {self.progress.windows}"
            reason = f"the gradient is not finite (loss {result.loss.item():.4g}) in {self.precision.name}"
            kept = "the checkpoints of earlier epochs are kept" if epoch > 1 else "no checkpoint was written yet"
            raise Diverged(where, reason, f"lower optimizer.lr or set max_grad_norm; {kept}")

    def save(self, best: bool) -> None:
        """Write a checkpoint."""
        self.checkpoints.save(self.state_dict(), self.progress.epoch, self.progress.optimizer_steps, best)

    def state_dict(self) -> dict[str, Any]:
        """Return all that a run is made of: tensors and plain values."""
        parts = ("model", "optimizer", "scheduler", "precision")
        return {part: getattr(self, part).state_dict() for part in parts} | {"progress": asdict(self.progress)}

    def log_window(self, result: StepResult) -> None:
        """Tell the loggers of a window; here more than the norm is read from the device."""
        report = WindowReport(
            window=self.progress.windows,
            loss=result.loss.item(),
            lr=self.lr,
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
            lr=self.lr,
            samples_per_second=self.pace.samples_per_second,
            seconds=self.pace.epoch_seconds(),
            best=best,
        )
        self.logbook.epoch(report)

    def conclude(self) -> Results:
        """Report the best checkpoint."""
        seconds = self.pace.total_seconds()
        self.model.load_state_dict(self.checkpoints.load("best", self.loaders.device)["model"])
        splits = {name: self.report(name) for name in ("val", "test")}
        self.weights.write(self.model, self.progress.best_epoch, splits["val"].metrics)
        counts = self.progress.counts()
        del counts["epoch"]
        results = Results(self.run_dir, self.progress.best_epoch, **counts, train_seconds=seconds, splits=splits)
        self.logbook.finish(results)
        return results

    def report(self, name: str) -> SplitResult:
        """Evaluate a split and write its report."""
        metrics, directory = self.task.metrics(), self.run_dir / "reports" / name
        split, batches = self.loaders.splits[name], self.batches(name, metrics)
        return SplitResult(
            *evaluate_and_report(self.model, split, batches, self.precision, self.task, metrics, directory)
        )
