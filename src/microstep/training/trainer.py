"""Trainer: runs epochs, validates, saves checkpoints, and evaluates the best checkpoint at the end."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from microstep.errors import Diverged, Pruned, Stopped
from microstep.run.checkpoints.checkpoints import Checkpoints, CheckpointSchedule
from microstep.run.progress import Position, Progress
from microstep.run.record_logger import find_logs
from microstep.run.weights import WeightsFile
from microstep.training.compiler import CompileTimer
from microstep.training.components import Components, Optimization, collect_state, load_state
from microstep.training.device import PeakMemory, torch_errors
from microstep.training.evaluation_loop import averaged_model, evaluate, evaluate_and_report
from microstep.training.monitoring import LoggerCollection, ThroughputMeter
from microstep.training.periods import Periods
from microstep.training.step_profiler import StepProfiler
from microstep.training.training_loop import check_equal_weights, finish_epoch, train_epoch
from microstep.types.data import Batch, LoadedWindow, StepResult
from microstep.types.events import EpochReport, Results, SplitResult, WindowReport
from microstep.types.protocols import Metrics, Strategy
from microstep.utils.signals import defer_signals
from microstep.utils.terminal import run_command


@dataclass
class Trainer:
    """Trains a model, saves checkpoints and evaluates the best one. `build_trainer` builds a trainer from a config."""

    components: Components
    optimization: Optimization
    checkpoints: Checkpoints
    loggers: LoggerCollection
    checkpoint_schedule: CheckpointSchedule
    identity: Mapping[str, Any]  #: identifies the run in its checkpoints
    weights: WeightsFile
    run_dir: Path
    periods: Periods
    connect: Callable[["Trainer"], AbstractContextManager[None]]  #: the other processes of the run
    profiler: StepProfiler | None = None
    record_found_size: Callable[[], bool] = lambda: False  #: returns whether it has changed
    prune: Callable[[int, float], str | None] = lambda epoch, best: None  #: returns why a search ends the run

    def __post_init__(self) -> None:
        self.model, self.precision = self.components.model, self.components.precision
        self.task, self.loaders, self.step = self.components.task, self.components.loaders, self.optimization.step
        self.progress, self.throughput = Progress(), ThroughputMeter(self.loaders.wait_timer)
        self.compile_timer = None if self.optimization.compiled is None else CompileTimer()

    @property
    def strategy(self) -> Strategy:
        return self.loaders.strategy

    @property
    def epochs(self) -> int:
        """Number of the last epoch. With `validate_every_steps`, each validation ends an epoch."""
        return self.periods.count(self.progress)

    def fit(self) -> Results:
        """Train the epochs that are left, then evaluate the best checkpoint on the validation and any test split.

        After a signal the current window is finished and a checkpoint is saved; then `Stopped` is raised.

        Returns:
            The metrics of the best checkpoint, its reports, and the cost of the run.

        Raises:
            Diverged: if the loss or its gradient is no longer finite. Earlier checkpoints are kept.
            Pruned: if a search has ended the run. It can be resumed.
            StorageError: if a checkpoint or a log can't be written. Earlier checkpoints are kept.
        """
        memory = PeakMemory(self.loaders.device)
        kept = self.checkpoint_schedule.keeping(self.checkpoints)
        with defer_signals(), kept, self.loggers, torch_errors(), self.connect(self), self.save_when_stopped():
            self.throughput.start_run()
            self.checkpoint_schedule.restart_timer()
            with closing(self.profiler) if self.profiler else nullcontext():
                for epoch in self.loggers.epochs(self.progress.epoch + 1, self.epochs):
                    if self.progress.stopped:
                        break
                    self.run_epoch(epoch)
            return self.conclude(memory)

    def run_epoch(self, epoch: int) -> None:
        self.train_epoch(epoch)
        val = self.evaluate("val")
        best = finish_epoch(epoch, val, self.optimization, self.progress)
        seconds = self.strategy.broadcast(self.total_seconds())
        self.progress.stopped = self.optimization.stop.after(epoch, self.progress.value, seconds)
        is_last = epoch == self.epochs or self.progress.stopped is not None
        pruned = self.strategy.broadcast(None if is_last else self.prune(epoch, self.progress.best_value))
        self.log_epoch(val, best)
        if best or is_last or pruned or self.checkpoint_schedule.is_due_after_epoch(epoch):
            self.save(best)
        if pruned:
            raise Pruned(self.run_dir.name, pruned, "resume=DIR trains it to its end")

    def train_epoch(self, epoch: int) -> None:
        self.throughput.start_epoch(self.progress.samples_seen)
        for data_pass, windows in self.windows(epoch):
            train_epoch(data_pass, windows, self.components, self.optimization, self.progress, self.after_window)
        check_equal_weights(self.model, self.strategy)
        self.throughput.end_training(self.progress.samples_seen)

    def after_window(self, result: StepResult) -> None:
        self.checkpoints.raise_failure()
        if self.loggers.is_due(self.progress.windows):
            self.log_window(result)
        if self.record_found_size() or self.checkpoint_schedule.is_due_after_window(self.progress.windows):
            self.save()

    def evaluate(self, name: str) -> dict[str, float]:
        metrics, model = self.task.metrics(), averaged_model(self.model, self.optimization.average)
        return evaluate(model, self.components, self.batches(name, metrics), metrics)

    def conclude(self, memory: PeakMemory) -> Results:
        seconds = self.total_seconds()
        self.progress.check_best_is_finite()
        for checkpoint, paths in self.components.reports.items():  # the best one comes last
            self.model.load_state_dict(self.strategy.broadcast(self.checkpoints.load(checkpoint)["model"]))
            splits = {name: self.report(name, path) for name, path in paths.items()}
        self.weights.write(self.model, self.progress.best_epoch, splits["val"].metrics, self.task)
        values: dict[str, Any] = {name: count for name, count in self.progress.counts().items() if name != "epoch"}
        values |= {"peak_memory_bytes": memory.bytes(), "saving": self.checkpoints.saving, "splits": splits}
        values["compiling"] = self.compile_timer.cost() if self.compile_timer else {}
        results = Results(self.run_dir, self.progress.best_epoch, train_seconds=seconds, **values)
        self.loggers.finish(results)
        return results

    def report(self, name: str, path: Path) -> SplitResult:
        batches = self.batches(name, metrics := self.task.metrics())
        return evaluate_and_report(self.components, name, batches, metrics, self.run_dir / path, path.name == "val")

    def windows(self, epoch: int) -> Iterator[tuple[int, Iterator[LoadedWindow]]]:
        """Yield each pass over the data that an epoch is part of, with the windows that are left to train."""
        (start, end), metrics = self.periods.bounds(self.progress), self.step.metrics
        samples = self.loaders.samples * (end - start) // self.periods.data_pass  # estimated if it is not one pass
        for data_pass, first, last in self.periods.parts(self.progress):
            windows = self.loaders.train(data_pass, first, getattr(self.step, "passes", 1), last)
            windows = windows if self.compile_timer is None else self.compile_timer(windows)
            windows = self.loggers.windows(windows, epoch, self.progress.epoch_samples, samples, metrics)
            yield data_pass, self.profiler.windows(windows, self.progress.windows) if self.profiler else windows

    def batches(self, name: str, metrics: Metrics) -> Iterator[Batch]:
        return self.loggers.batches(self.loaders.evaluation(name), name, len(self.loaders.splits[name]), metrics)

    def save(self, best: bool = False) -> None:
        """Save a checkpoint; it is written to the disk while training continues."""
        logs = find_logs(self.run_dir)
        sizes = {file.name: file.stat().st_size for file in logs}
        self.checkpoints.save(self.state_dict() | {"logs": sizes}, self.progress, best, logs)
        self.checkpoint_schedule.restart_timer()

    @contextmanager
    def save_when_stopped(self) -> Iterator[None]:
        """Save a checkpoint if a signal stops the run between two windows, and wait for unfinished writes in any case.

        The message of `Diverged` gets the command that shows where, and the checkpoint that is kept.
        """
        try:
            yield
        except Stopped as stopped:
            if stopped.safe and self.progress.position != self.checkpoints.saved_position:
                self.save()
            raise
        except Diverged as error:
            (*what, remedy), place, error.window = error.args, self.checkpoints.saved_position, self.progress.windows
            kept = f"the checkpoint of {place} is kept" if place != Position() else "no checkpoint was written yet"
            error.args = (*what, f"{remedy}; {run_command('replay', self.run_dir)} shows where; {kept}")
            raise
        finally:
            self.checkpoints.wait()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the run: tensors and plain values only."""
        states = collect_state(self.components, self.optimization)
        return states | {"progress": asdict(self.progress) | {"seconds": self.total_seconds()}, **self.identity}

    def load_state_dict(self, state: Mapping[str, Any], progress: Progress) -> None:
        load_state(self.components, self.optimization, state)
        self.progress = progress

    def total_seconds(self) -> float:
        return self.progress.seconds + self.throughput.total_seconds()

    def log_window(self, result: StepResult) -> None:
        window, lr, skipped = self.progress.windows, self.progress.lr, self.progress.skipped_steps
        loss, scale = result.loss.item(), self.precision.loss_scale()
        rates = self.throughput.lap(self.progress.samples_seen)
        self.loggers.window(WindowReport(window, loss, lr, result.grad_norm, scale, skipped, **rates))

    def log_epoch(self, val: dict[str, float], best: bool) -> None:
        train, lr, meter = self.step.metrics.compute(), self.progress.lr, self.throughput
        values: dict[str, Any] = {"epochs": self.epochs, "train": train, "val": val, "lr": lr, "best": best}
        values |= {"monitor": self.optimization.monitor.name, "stopped": self.progress.stopped}
        values |= {"samples_per_second": meter.samples_per_second, "seconds": meter.epoch_seconds()}
        self.loggers.epoch(EpochReport(**self.progress.counts() | values))
