"""Accumulation loops by name, and the causes that make one inexact."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from math import prod


class Cause(Enum):
    """Reasons why micro-batches and one large batch differ. The value is the text of the table."""

    SUM = "unnormalized sum"
    LEFTOVER = "leftover window"
    RAGGED = "ragged micro-batches"
    CLASS_WEIGHTS = "class weights"
    DROPPED = "dropped tail"
    ZEROED = "zero_grad in the loop"
    CLIPPING = "clipping each micro-batch"
    SCALE = "gradient scale changed midway"
    NORMALISATION = "BatchNorm's normalization"
    STATISTICS = "BatchNorm's running statistics"
    DRAWS = "dropout's masks"


DIVIDE_REMEDY = "divide each micro-batch's summed loss by the weight of the whole window, as rule=weighted_mean does"
NORM_REMEDY = (
    "use GroupNorm instead (model=resnet18 has model.norm=group), or fine-tune with frozen BatchNorm "
    "(model=torchvision has model.weights=DEFAULT model.freeze=backbone); a larger batch_size with a smaller accum "
    "reduces the difference"
)
REMEDIES = {
    **dict.fromkeys((Cause.SUM, Cause.LEFTOVER, Cause.RAGGED, Cause.CLASS_WEIGHTS), DIVIDE_REMEDY),
    Cause.DROPPED: "keep the short micro-batches and divide by the weight of the whole window",
    Cause.ZEROED: "call optimizer.zero_grad() once a window, not once a micro-batch",
    Cause.CLIPPING: "clip once, after the window's last backward",
    Cause.SCALE: "call scaler.update() once, after the window's step, so that the whole window has one scale",
    Cause.NORMALISATION: NORM_REMEDY,
    Cause.STATISTICS: NORM_REMEDY,
    Cause.DRAWS: "set dropout to 0; each micro-batch draws new masks, which differ from those of one large batch",
}
MODEL_CAUSES = (Cause.NORMALISATION, Cause.STATISTICS, Cause.DRAWS)  #: in the model, with any loop
Factors = tuple[float, ...]


@dataclass(frozen=True)
class WindowShape:
    """Sizes and weights of a window's micro-batches."""

    sizes: tuple[int, ...]  #: samples of each micro-batch
    weights: tuple[float, ...]  #: sum of the sample weights of each micro-batch
    full_size: int  #: micro-batches of a full window

    @property
    def samples(self) -> int:
        return sum(self.sizes)

    @property
    def weight(self) -> float:
        return sum(self.weights)

    def repeat_factor(self, factor: float) -> Factors:
        return (factor,) * len(self.sizes)


@dataclass(frozen=True)
class AccumulationLoop:
    """A loop over a window's micro-batches, described by its deviations from the exact one.

    The exact loop divides each micro-batch's summed loss by the weight of the whole window.
    """

    factors: Mapping[Cause, Factors] = field(default_factory=dict)  #: multiply the losses of the micro-batches
    clips_each: bool = False  #: clips the gradient so far after each backward
    doubles_scale: bool = False  #: doubles the gradient scale before the last backward

    @property
    def causes(self) -> tuple[Cause, ...]:
        """The causes that can make a difference in this window."""
        scaling = [cause for cause, factors in self.factors.items() if any(factor != 1 for factor in factors)]
        between = ((Cause.CLIPPING, self.clips_each), (Cause.SCALE, self.doubles_scale))
        return (*scaling, *(cause for cause, occurs in between if occurs))

    def select_causes(self, causes: Collection[Cause]) -> AccumulationLoop:
        return AccumulationLoop(
            {cause: factors for cause, factors in self.factors.items() if cause in causes},
            clips_each=self.clips_each and Cause.CLIPPING in causes,
            doubles_scale=self.doubles_scale and Cause.SCALE in causes,
        )

    def factor(self, number: int) -> float:
        return prod(factors[number] for factors in self.factors.values())


def weighted_mean(shape: WindowShape) -> AccumulationLoop:
    """Divide each micro-batch's summed loss by the weight of the window, as train.py does."""
    return AccumulationLoop()


def mean_of_means(shape: WindowShape) -> AccumulationLoop:
    """Average the micro-batches' means; a short micro-batch counts as much as a full one."""
    return AccumulationLoop(uneven_factors(shape))


def mean_over_accum(shape: WindowShape) -> AccumulationLoop:
    """Divide each micro-batch's mean by `accum`, also in a short window, like most tutorials and Lightning."""
    leftover = shape.repeat_factor(len(shape.sizes) / shape.full_size)
    return AccumulationLoop({Cause.LEFTOVER: leftover, **uneven_factors(shape)})


def sum_of_means(shape: WindowShape) -> AccumulationLoop:
    """Sum the micro-batches' means without dividing them."""
    return AccumulationLoop({Cause.SUM: shape.repeat_factor(len(shape.sizes)), **uneven_factors(shape)})


def dropped_tail(shape: WindowShape) -> AccumulationLoop:
    """Average over full micro-batches only; a short one is left out, as `drop_last` does."""
    kept = [size == shape.sizes[0] for size in shape.sizes]
    weight = sum(weight for weight, keep in zip(shape.weights, kept, strict=True) if keep)
    return AccumulationLoop({Cause.DROPPED: tuple(keep * shape.weight / weight for keep in kept)})


def zero_grad_each(shape: WindowShape) -> AccumulationLoop:
    """Zero the gradient before each backward, so that only the last micro-batch counts; else as mean_over_accum."""
    last = (0.0,) * (len(shape.sizes) - 1) + (1.0,)
    return AccumulationLoop({Cause.ZEROED: last, **mean_over_accum(shape).factors})


def clip_each(shape: WindowShape) -> AccumulationLoop:
    """Clip the accumulated gradient after each backward; else as weighted_mean."""
    return AccumulationLoop(clips_each=True)


def scale_doubles(shape: WindowShape) -> AccumulationLoop:
    """Double the gradient scale before the last backward, as a scaler updated midway does; else as weighted_mean."""
    return AccumulationLoop(doubles_scale=True)


def uneven_factors(shape: WindowShape) -> dict[Cause, Factors]:
    """Return the factors by which a mean of means deviates, for different sizes and for different class weights."""
    size, weight = shape.samples / len(shape.sizes), shape.weight / shape.samples
    return {
        Cause.RAGGED: tuple(size / n for n in shape.sizes),
        Cause.CLASS_WEIGHTS: tuple(weight / (w / n) for n, w in zip(shape.sizes, shape.weights, strict=True)),
    }


DIVIDING_LOOPS = (weighted_mean, mean_over_accum, mean_of_means, sum_of_means)
OTHER_LOOPS = (dropped_tail, zero_grad_each, clip_each, scale_doubles)
LOOPS = {loop.__name__: loop for loop in (*DIVIDING_LOOPS, *OTHER_LOOPS)}
