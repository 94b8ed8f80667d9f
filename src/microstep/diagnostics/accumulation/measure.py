"""Measures each cause alone: with every other one switched off."""

import math
from collections.abc import Collection
from dataclasses import dataclass, field

from torch import nn
from torch.nn.utils import get_total_norm

from microstep.diagnostics.accumulation import batch_dependence as dependence
from microstep.diagnostics.accumulation import gradient
from microstep.diagnostics.accumulation.batch_dependence import BatchDependentModules, copy_in_training_mode
from microstep.diagnostics.accumulation.gradient import CHECKED_EPOCH, CheckedWindow, WindowGradient
from microstep.diagnostics.accumulation.loops import MODEL_CAUSES, AccumulationLoop, Cause
from microstep.diagnostics.accumulation.sample_weights import (
    SampleWeights,
    compute_layer_differences,
    compute_statistics_difference,
    compute_total_difference,
    measure_running_weights,
)
from microstep.diagnostics.accumulation.unexplained import explain_difference
from microstep.errors import Diverged
from microstep.types.data import Batch
from microstep.types.protocols import Task, Transform
from microstep.utils.randomness import reseed

EXACT_TOLERANCE = 1e-12  #: relative difference up to which fp64 gradients count as the same


@dataclass(frozen=True)
class WindowMeasurement:
    """Relative differences in one window between micro-batches and one large batch.

    A difference is infinite if the large batch has a gradient of zero and the micro-batches have not.
    """

    window: CheckedWindow
    layer_differences: dict[str, float]
    total_difference: float  #: over all layers
    cause_differences: dict[Cause, float]  #: of each cause that occurs, with every other one switched off
    remaining_difference: float  #: with all causes switched off
    unexplained: str  #: the suspected reason of the remaining difference; empty if there is none
    sample_weights: SampleWeights  #: in the gradient
    running_weights: SampleWeights | None  #: of the micro-batches, in BatchNorm's running statistics, if any

    @property
    def micro_batch_weights(self) -> SampleWeights:
        return self.sample_weights.group_sums(self.window.shape.sizes)

    @property
    def causes(self) -> list[Cause]:
        """The causes that make a difference, the largest first."""
        ordered = sorted(self.cause_differences.items(), key=lambda pair: -pair[1])
        return [cause for cause, difference in ordered if not difference <= EXACT_TOLERANCE]

    @property
    def is_exact(self) -> bool:
        """Whether gradient and running statistics are those of one large batch. NaN is not exact."""
        totals = (self.total_difference, self.remaining_difference)
        differences = (*self.layer_differences.values(), *totals, *self.cause_differences.values())
        return all(difference <= EXACT_TOLERANCE for difference in differences)


@dataclass
class CauseIsolation:
    """Computes a window's gradient with some causes and without the others."""

    model: nn.Module  #: in fp64; it does not change
    window: CheckedWindow
    loop: AccumulationLoop  #: for this window
    task: Task
    max_grad_norm: float | None
    seed: int  #: of the run
    transform: Transform | None = None
    batch_dependent: BatchDependentModules = field(init=False)
    cache: dict[object, WindowGradient] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.batch_dependent = dependence.find_batch_dependent_modules(self.model, self.window.batches[0])

    def accumulated_gradient(self, causes: Collection[Cause]) -> WindowGradient:
        return self.compute_gradient(causes, self.loop.select_causes(causes), self.window.batches)

    def full_batch_gradient(self, causes: Collection[Cause]) -> WindowGradient:
        """Return the gradient of one large batch. Only causes in the model matter to it."""
        return self.compute_gradient(set(causes) & set(MODEL_CAUSES), AccumulationLoop(), [self.window.full_batch])

    def compute_gradient(
        self, causes: Collection[Cause], loop: AccumulationLoop, batches: list[Batch]
    ) -> WindowGradient:
        frozen = self.batch_dependent.select_frozen(causes)
        key = (frozen, loop.causes, len(batches))
        if key not in self.cache:
            reseed(batches[0].inputs.device, self.seed, CHECKED_EPOCH, self.window.number)
            weight, model = self.window.shape.weight, copy_in_training_mode(self.model, frozen)
            self.cache[key] = gradient.compute_window_gradient(
                model, batches, weight, loop, self.task, self.max_grad_norm, self.transform
            )
        return self.cache[key]

    def measure_difference(self, *causes: Cause) -> float:
        accumulated, full = self.accumulated_gradient(causes), self.full_batch_gradient(causes)
        return compute_total_difference(accumulated.gradients, full.gradients)

    def measure_cause(self, cause: Cause) -> float:
        """Return the relative difference that one cause makes: to the gradient, or to the running statistics."""
        if cause is not Cause.STATISTICS:
            return self.measure_difference(cause)
        causes, layers = (Cause.NORMALISATION, Cause.STATISTICS), self.batch_dependent.running_statistics
        accumulated, full = self.accumulated_gradient(causes), self.full_batch_gradient(causes)
        return compute_statistics_difference(accumulated.buffers, full.buffers, layers)

    def measure_running_weights(self) -> SampleWeights | None:
        """Return the weights of the micro-batches in the first layer that keeps running statistics."""
        layers = [self.model.get_submodule(name) for name in self.batch_dependent.running_statistics[:1]]
        return next((measure_running_weights(layer, self.window.shape.sizes) for layer in layers), None)

    def explain_rest(self) -> str:
        model = copy_in_training_mode(self.model, self.batch_dependent.select_frozen(()))
        return explain_difference(model, self.window.batches, self.window.full_batch, self.task, EXACT_TOLERANCE)


def measure_window(isolation: CauseIsolation) -> WindowMeasurement:
    """Measure a window; raise Diverged if the gradient of one large batch is not finite."""
    causes = (*isolation.loop.causes, *isolation.batch_dependent.causes)
    accumulated, full = isolation.accumulated_gradient(causes), isolation.full_batch_gradient(causes)
    if not math.isfinite(get_total_norm(full.gradients.values())):
        reason = "the gradient of one big batch is not finite, in fp64 too"
        raise Diverged(f"the {isolation.window.name}", reason, "check the data and the model's initial weights")
    layers = compute_layer_differences(accumulated.gradients, full.gradients)
    total = compute_total_difference(accumulated.gradients, full.gradients)
    found, rest = {cause: isolation.measure_cause(cause) for cause in causes}, isolation.measure_difference()
    unexplained = "" if rest <= EXACT_TOLERANCE else isolation.explain_rest()
    weights = SampleWeights(tuple(accumulated.sample_weights.tolist()), tuple(full.sample_weights.tolist()))
    running = isolation.measure_running_weights()
    return WindowMeasurement(isolation.window, layers, total, found, rest, unexplained, weights, running)
