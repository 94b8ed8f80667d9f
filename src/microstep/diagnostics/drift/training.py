"""Trains two variants side by side without run directories."""

from collections.abc import Iterator
from dataclasses import dataclass

from omegaconf import DictConfig
from torch import Tensor

from microstep.errors import Diverged
from microstep.run.progress import Progress
from microstep.training.builders import build_components
from microstep.training.components import Components, Optimization
from microstep.training.evaluation_loop import PredictionCollector, averaged_model, evaluate
from microstep.training.optimization import build_optimization
from microstep.training.profiling.gradients import relative_distance
from microstep.training.training_loop import finish_epoch, train_epoch
from microstep.types.protocols import SupportsDecide
from microstep.utils.progress_bar import ProgressBars


@dataclass(frozen=True)
class ValidationOutputs:
    """Outputs, predictions and metrics on the validation split."""

    outputs: Tensor  #: N × …, at least float32, on the CPU
    decisions: Tensor | None  #: N × …: the predictions; None if the task does not define them
    metrics: dict[str, float]


@dataclass
class DriftTraining:
    """A training without a run directory. After each epoch, its weights are bit for bit those of a run."""

    name: str
    components: Components
    optimization: Optimization

    def __post_init__(self) -> None:
        self.progress = Progress()
        self.start = [p.detach().clone() for p in self.components.model.parameters()]

    def train(self, epoch: int, bars: ProgressBars) -> None:
        """Take one optimizer step over each of the epoch's windows."""
        loaders, step = self.components.loaders, self.optimization.step
        windows, running = loaders.train(epoch, passes=getattr(step, "passes", 1)), step.metrics.running_values
        shown = bars.samples(windows, self.name, loaders.samples, lambda w: w.samples, running)
        try:
            train_epoch(epoch, shown, self.components, self.optimization, self.progress)
        except Diverged as error:
            subject, reason, remedy = error.args
            raise Diverged(f"{self.name}, {subject}", reason, remedy) from None

    def validate(self) -> ValidationOutputs:
        components, collector = self.components, PredictionCollector()
        batches, metrics = components.loaders.evaluation("val"), components.task.metrics()
        model = averaged_model(components.model, self.optimization.average)
        values = evaluate(model, components, batches, metrics, collector)
        finish_epoch(self.progress.epoch + 1, values, self.optimization, self.progress)
        outputs = collector.predictions(components.loaders.splits["val"]).outputs
        decisions = components.task.decide(outputs) if isinstance(components.task, SupportsDecide) else None
        return ValidationOutputs(outputs, decisions, values)

    def iter_weight_changes(self) -> Iterator[Tensor]:
        """Yield the change of each parameter, or of its average, since the start: float64, on the CPU."""
        model = self.components.model
        averaged = self.optimization.average.weights(model) or {}
        for (name, now), start in zip(model.named_parameters(), self.start, strict=True):
            yield averaged.get(name, now).detach().cpu().double() - start.cpu().double()


def start_training(
    name: str, config: DictConfig, precision_name: str | None = None, steps_per_epoch: int | None = None
) -> DriftTraining:
    """Build a training. `precision_name` is the precision to use if the config leaves it to a measurement."""
    components = build_components(config, saved_name=precision_name)
    return DriftTraining(name, components, build_optimization(config, components, steps_per_epoch=steps_per_epoch))


@dataclass(frozen=True)
class Distance:
    """The distance between two trainings after an epoch. It is zero if no bit differs.

    Changes by training are compared, because relative to the weights themselves a pretrained model would seem close to
    any other, and two seeds as far apart as their initial weights. Unrelated trainings are √2, or 141 %, apart, since
    random directions are nearly orthogonal in many dimensions. Models with different weights may still compute nearly
    the same outputs.
    """

    weights: float  #: ‖Δa − Δb‖ / ‖Δb‖, with Δ the change by training
    outputs: float  #: ‖f(a) − f(b)‖ / ‖f(b)‖ over the validation split
    predictions: int | None  #: number that differ; None if the task does not define predictions
    metrics: dict[str, float]  #: absolute difference of each


def measure_distance(
    one: DriftTraining, other: DriftTraining, seen: ValidationOutputs, reference: ValidationOutputs
) -> Distance:
    weights = relative_distance(zip(one.iter_weight_changes(), other.iter_weight_changes(), strict=True))
    outputs = relative_distance([(seen.outputs, reference.outputs)])
    metrics = {name: abs(value - reference.metrics[name]) for name, value in seen.metrics.items()}
    return Distance(weights, outputs, count_differing_predictions(seen.decisions, reference.decisions), metrics)


def count_differing_predictions(one: Tensor | None, other: Tensor | None) -> int | None:
    if one is None or other is None:
        return None
    return int((one != other).reshape(len(one), -1).any(1).sum())
