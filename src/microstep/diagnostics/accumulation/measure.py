"""The causes, each measured alone: with it switched on and every other switched off."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field

from torch import nn
from torch.nn.utils import get_total_norm

from microstep.diagnostics.accumulation.batch_dependence import (
    BatchDependentModules,
    copy_in_training_mode,
    find_batch_dependent_modules,
)
from microstep.diagnostics.accumulation.gradient import (
    CHECKED_EPOCH,
    CheckedWindow,
    WindowGradient,
    compute_window_gradient,
)
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
from microstep.types.protocols import Task
from microstep.utils.randomness import reseed

EXACT_TOLERANCE = 1e-12  #: relative difference up to which fp64 gradients count as the same
EXACT_LOOP = AccumulationLoop()


@dataclass(frozen=True)
class WindowMeasurement:
    """What was found in one window: relative differences between micro-batches and one big batch."""

    window: CheckedWindow
    layers: dict[str, float]
    total: float  #: over all layers
    alone: dict[Cause, float]  #: of each cause that occurs, with every other switched off
    rest: float  #: with all of them switched off
    unexplained: str  #: where that is not zero, what else was found
    samples: SampleWeights  #: what each weighs in the gradient
    running: (
        SampleWeights | None
    )  #: what each micro-batch weighs in BatchNorm's running statistics, where there are some

    @property
    def micro_batches(self) -> SampleWeights:
        """What each weighs in the gradient."""
        return self.samples.by(self.window.shape.sizes)

    @property
    def causes(self) -> list[Cause]:
        """What makes a difference, the largest first."""
        found = sorted(self.alone.items(), key=lambda pair: -pair[1])
        return [cause for cause, size in found if size > EXACT_TOLERANCE]

    @property
    def exact(self) -> bool:
        """Whether the window's gradient, and what is left in the model, are those of one big batch."""
        return max(*self.layers.values(), self.total, self.rest, *self.alone.values()) <= EXACT_TOLERANCE


@dataclass
class CauseIsolation:
    """Makes a window's gradient with some causes and without the others.

    Args:
        model: in fp64; it stays as it is.
        loop: the one to be looked at, for this window.
        seed: the run's.
    """

    model: nn.Module
    window: CheckedWindow
    loop: AccumulationLoop
    task: Task
    max_grad_norm: float | None
    seed: int
    suspects: BatchDependentModules = field(init=False)
    kept: dict[object, WindowGradient] = field(init=False, default_factory=dict)  #: nothing is computed twice

    def __post_init__(self) -> None:
        self.suspects = find_batch_dependent_modules(self.model, self.window.batches[0])

    def cut(self, causes: Collection[Cause]) -> WindowGradient:
        """Return the gradient made of micro-batches by the loop."""
        return self.made(causes, self.loop.only(causes), self.window.batches)

    def uncut(self, causes: Collection[Cause]) -> WindowGradient:
        """Return the gradient made of one big batch; of the causes only the model's own can matter."""
        return self.made(set(causes) & set(MODEL_CAUSES), EXACT_LOOP, [self.window.whole])

    def made(self, causes: Collection[Cause], loop: AccumulationLoop, batches: list[Batch]) -> WindowGradient:
        """Return a gradient; what the model draws is drawn from the seed of the window, as in training."""
        frozen = self.suspects.frozen(causes)
        key = (frozen, loop.causes, len(batches))
        if key not in self.kept:
            reseed(batches[0].inputs.device, self.seed, CHECKED_EPOCH, self.window.number)
            weight, model = self.window.shape.weight, copy_in_training_mode(self.model, frozen)
            self.kept[key] = compute_window_gradient(model, batches, weight, loop, self.task, self.max_grad_norm)
        return self.kept[key]

    def apart(self, *causes: Cause) -> float:
        """Return how far the two are apart with these causes."""
        return compute_total_difference(self.cut(causes).gradients, self.uncut(causes).gradients)

    def apart_by(self, cause: Cause) -> float:
        """Return how far the two are apart by one cause: gradients, or the running statistics that are left behind."""
        if cause is not Cause.STATISTICS:
            return self.apart(cause)
        causes = (Cause.NORMALISATION, Cause.STATISTICS)
        return compute_statistics_difference(self.cut(causes), self.uncut(causes), self.suspects.running)

    def running(self) -> SampleWeights | None:
        """Return what each micro-batch weighs in the first layer that keeps running statistics."""
        layers = [self.model.get_submodule(name) for name in self.suspects.running[:1]]
        return next((measure_running_weights(layer, self.window.shape.sizes) for layer in layers), None)

    def explained(self) -> str:
        """Return what else was found in the model, where no known cause is left."""
        model = copy_in_training_mode(self.model, self.suspects.frozen(()))
        return explain_difference(model, self.window.batches, self.window.whole, self.task, EXACT_TOLERANCE)


def check_gradient_nonzero(uncut: WindowGradient, window: CheckedWindow) -> None:
    """Refuse a window that has no gradient to speak of.

    Raises:
        Diverged: where the gradient of one big batch isn't finite.
    """
    if not math.isfinite(get_total_norm(uncut.gradients.values())):
        reason = "the gradient of one big batch is not finite, in fp64 too"
        raise Diverged(f"the {window.name}", reason, "look for it in the data, or in the model's first weights")


def measure_window(isolation: CauseIsolation) -> WindowMeasurement:
    """Return what there is to be found in a window."""
    causes = (*isolation.loop.causes, *isolation.suspects.causes)
    cut, uncut = isolation.cut(causes), isolation.uncut(causes)
    check_gradient_nonzero(uncut, isolation.window)
    alone = {cause: isolation.apart_by(cause) for cause in causes}
    layers, total = (
        compute_layer_differences(cut.gradients, uncut.gradients),
        compute_total_difference(cut.gradients, uncut.gradients),
    )
    rest = isolation.apart()
    unexplained = "" if rest <= EXACT_TOLERANCE else isolation.explained()
    samples = SampleWeights(tuple(cut.weights.tolist()), tuple(uncut.weights.tolist()))
    return WindowMeasurement(isolation.window, layers, total, alone, rest, unexplained, samples, isolation.running())
