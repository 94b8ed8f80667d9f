"""Trains two variants side by side without run directories."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from omegaconf import DictConfig
from torch import Tensor
from torch.optim import Optimizer

from microstep.errors import Diverged
from microstep.run.progress import Progress
from microstep.training.builders import build_components, build_optimization
from microstep.training.components import Components
from microstep.training.evaluation_loop import PredictionCollector, evaluate
from microstep.training.monitoring import divergence_error
from microstep.training.profiling.gradients import relative_distance
from microstep.types.data import LoadedWindow
from microstep.types.protocols import Scheduler, Step, SupportsDecide
from microstep.utils.progress_bar import ProgressBars
from microstep.utils.randomness import reseed


@dataclass(frozen=True)
class ValidationOutputs:
    """What a model makes of the validation split."""

    outputs: Tensor  #: N × …, at least float32, on the CPU
    decided: Tensor | None  #: N × …: what each sample is taken for, where the task says so
    metrics: dict[str, float]


@dataclass
class DriftTraining:
    """Ends each epoch with the weights, bit for bit, that a run of the same config has then."""

    name: str
    parts: Components
    optimizer: Optimizer
    scheduler: Scheduler
    step: Step
    seed: int

    def __post_init__(self) -> None:
        self.progress = Progress()
        self.start = [p.detach().clone() for p in self.parts.model.parameters()]

    def train(self, epoch: int, bars: ProgressBars) -> None:
        """Take one optimizer step over each of the epoch's windows.

        Raises:
            Diverged: the loss or its gradient is no longer finite.
        """
        parts = self.parts
        parts.model.train()
        self.step.metrics.reset()
        for window in self.windows(epoch, bars):
            reseed(parts.device, self.seed, epoch, window.number)
            result = self.step(parts.model, self.optimizer, window.batches, window.weight)
            self.progress.count(window, result, lr=self.optimizer.param_groups[0]["lr"])
            if self.progress.skipped_in_a_row > parts.precision.max_skipped:
                raise add_training_name(
                    self.name, divergence_error(epoch, window, result, parts.precision.name, checkpoint_position=None)
                )
            if result.updated:
                self.scheduler.step()

    def windows(self, epoch: int, bars: ProgressBars) -> Iterator[LoadedWindow]:
        """Yield the epoch's windows under a bar."""
        loaders, metrics = self.parts.loaders, self.step.metrics
        samples = len(loaders.splits["train"])
        return bars.samples(loaders.train(epoch), self.name, samples, lambda w: w.samples, metrics.running_values)

    def validate(self) -> ValidationOutputs:
        """Return what the model makes of the validation split now."""
        parts, kept = self.parts, PredictionCollector()
        batches, metrics = parts.loaders.evaluation("val"), parts.task.metrics()
        values = evaluate(parts.model, batches, parts.precision, parts.task, metrics, kept)
        outputs = kept.predictions(parts.loaders.splits["val"]).outputs
        return ValidationOutputs(
            outputs, parts.task.decide(outputs) if isinstance(parts.task, SupportsDecide) else None, values
        )

    def moves(self) -> Iterator[Tensor]:
        """Yield how far training has moved each parameter: float64, on the CPU."""
        for now, start in zip(self.parts.model.parameters(), self.start, strict=True):
            yield now.detach().cpu().double() - start.cpu().double()


def start_training(name: str, config: DictConfig, precision_name: str | None = None) -> DriftTraining:
    """Return a training that is about to take its first step.

    Args:
        precision_name: the precision to compute in, where the config leaves that to a measurement.
    """
    parts = build_components(config, saved_name=precision_name)
    return DriftTraining(name, parts, *build_optimization(config, parts), seed=config.seed)


def add_training_name(name: str, error: Diverged) -> Diverged:
    """Return the error with the training's name."""
    where, reason, remedy = error.args
    return Diverged(f"{name}, {where}", reason, remedy)


@dataclass(frozen=True)
class Distance:
    """Two trainings after an epoch. Zero everywhere: no bit differs.

    `weights` is ‖Δa − Δb‖ / ‖Δb‖, where Δ is what training has moved: relative to the weights themselves, a model that
    starts well (a pretrained one) or has run for an epoch would look close to anything, and two seeds would be as far
    apart as their initial weights, whatever was learnt. Two trainings that have nothing to do with each other are
    √2, or 141 %, apart: directions by chance are orthogonal in so many dimensions.

    Weights aren't what a model is for, though: two can compute nearly the same with very different ones. `outputs`,
    ‖f(a) − f(b)‖ / ‖f(b)‖ over the validation split, is meant for any task.
    """

    weights: float
    outputs: float
    predictions: int | None  #: that differ; None where the task doesn't say what it takes a sample for
    metrics: dict[str, float]  #: each one's difference, without sign


def measure_distance(
    one: DriftTraining, other: DriftTraining, seen: ValidationOutputs, reference: ValidationOutputs
) -> Distance:
    """Return how far one training is from the other, whose extent is the unit."""
    weights = relative_distance(zip(one.moves(), other.moves(), strict=True))
    outputs = relative_distance([(seen.outputs, reference.outputs)])
    metrics = {name: abs(value - reference.metrics[name]) for name, value in seen.metrics.items()}
    return Distance(weights, outputs, count_differing_predictions(seen.decided, reference.decided), metrics)


def count_differing_predictions(one: Tensor | None, other: Tensor | None) -> int | None:
    """Return how many samples are taken for something else."""
    if one is None or other is None:
        return None
    return int((one != other).flatten(1).any(1).sum()) if one.dim() > 1 else int((one != other).sum())
