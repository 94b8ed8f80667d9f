"""Accumulation loops by name, and the causes that make one inexact."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum


class Cause(Enum):
    """A reason, in the words of the table; `remedy` says what to change."""

    SUM = "un-normalised sum"
    LEFTOVER = "leftover window"
    RAGGED = "ragged micro-batches"
    CLASS_WEIGHTS = "class weights"
    DROPPED = "dropped tail"
    ZEROED = "zero_grad in the loop"
    CLIPPING = "clipping each micro-batch"
    SCALE = "gradient scale changed midway"
    NORMALISATION = "BatchNorm's normalisation"
    STATISTICS = "BatchNorm's running statistics"
    DRAWS = "dropout's masks"

    @property
    def remedy(self) -> str:
        """What makes it exact."""
        return REMEDIES[self]


DIVIDE_REMEDY = "divide each micro-batch's summed loss by the weight of the whole window, as rule=weighted_mean does"
NORM_REMEDY = (
    "put GroupNorm in its place (model=resnet18 has model.norm=group), or fine-tune with frozen BatchNorm "
    "(model=torchvision has model.weights=DEFAULT model.freeze=backbone); a larger batch_size with a smaller accum "
    "narrows it"
)
REMEDIES = {
    Cause.SUM: DIVIDE_REMEDY,
    Cause.LEFTOVER: DIVIDE_REMEDY,
    Cause.RAGGED: DIVIDE_REMEDY,
    Cause.CLASS_WEIGHTS: DIVIDE_REMEDY,
    Cause.DROPPED: "keep the short micro-batches: with the window's weight as the divisor they are no special case",
    Cause.ZEROED: "call optimizer.zero_grad() once a window, not once a micro-batch",
    Cause.CLIPPING: "clip once, after the window's last backward",
    Cause.SCALE: "call scaler.update() once, after the window's step: all of a window needs one scale",
    Cause.NORMALISATION: NORM_REMEDY,
    Cause.STATISTICS: NORM_REMEDY,
    Cause.DRAWS: "set dropout to 0; drawn for each micro-batch, its masks are the same in law, not in value",
}
MODEL_CAUSES = (Cause.NORMALISATION, Cause.STATISTICS, Cause.DRAWS)  #: the model's own, whatever the loop
Factors = tuple[float, ...]


@dataclass(frozen=True)
class WindowShape:
    """What a window is made of."""

    sizes: tuple[int, ...]  #: samples of each micro-batch
    weights: tuple[float, ...]  #: the sum of its samples' weights
    full: int  #: micro-batches of a full window

    @property
    def samples(self) -> int:
        """Samples of the window."""
        return sum(self.sizes)

    @property
    def weight(self) -> float:
        """The sum of all samples' weights."""
        return sum(self.weights)

    def each(self, factor: float) -> Factors:
        """Return one factor for all micro-batches."""
        return (factor,) * len(self.sizes)


@dataclass(frozen=True)
class AccumulationLoop:
    """A loop over a window: what it does to the exact gradient, by cause; nothing of it is ours.

    Each micro-batch's summed loss is divided by the weight of the whole window, which is exact, and multiplied by its
    factor of each cause.
    """

    factors: Mapping[Cause, Factors] = field(default_factory=dict)
    clips: bool = False  #: the gradient so far, after each backward
    doubles: bool = False  #: the gradient scale, before the last backward

    @property
    def causes(self) -> tuple[Cause, ...]:
        """What can make a difference in this window."""
        told = [cause for cause, factors in self.factors.items() if any(factor != 1 for factor in factors)]
        between = [cause for cause, on in ((Cause.CLIPPING, self.clips), (Cause.SCALE, self.doubles)) if on]
        return (*told, *between)

    def only(self, causes: Collection[Cause]) -> AccumulationLoop:
        """Return the loop with these of its faults and no other."""
        factors = {cause: each for cause, each in self.factors.items() if cause in causes}
        clips, doubles = self.clips and Cause.CLIPPING in causes, self.doubles and Cause.SCALE in causes
        return replace(self, factors=factors, clips=clips, doubles=doubles)

    def factor(self, number: int) -> float:
        """Return what a micro-batch's exact share is multiplied by."""
        product = 1.0
        for each in self.factors.values():
            product *= each[number]
        return product


def weighted_mean(shape: WindowShape) -> AccumulationLoop:
    """Each micro-batch's summed loss over the window's weight: what train.py does."""
    return AccumulationLoop()


def mean_of_means(shape: WindowShape) -> AccumulationLoop:
    """The mean of the micro-batches' means: a short one counts as much as a full one."""
    return AccumulationLoop(uneven_factors(shape))


def mean_over_accum(shape: WindowShape) -> AccumulationLoop:
    """Each micro-batch's mean over `accum`, however many there are: most tutorials', Lightning's, Accelerate's."""
    return AccumulationLoop({Cause.LEFTOVER: shape.each(len(shape.sizes) / shape.full), **uneven_factors(shape)})


def sum_of_means(shape: WindowShape) -> AccumulationLoop:
    """The sum of the micro-batches' means, divided by nothing."""
    return AccumulationLoop({Cause.SUM: shape.each(len(shape.sizes)), **uneven_factors(shape)})


def dropped_tail(shape: WindowShape) -> AccumulationLoop:
    """The mean over full micro-batches alone: a short one is left out, as `drop_last` does."""
    kept = [size == shape.sizes[0] for size in shape.sizes]
    weight = sum(weight for weight, keep in zip(shape.weights, kept, strict=True) if keep)
    return AccumulationLoop({Cause.DROPPED: tuple(keep * shape.weight / weight for keep in kept)})


def zero_grad_each(shape: WindowShape) -> AccumulationLoop:
    """As mean_over_accum, with the gradient zeroed before each backward: the last micro-batch is all that is left."""
    last = tuple(float(number == len(shape.sizes) - 1) for number in range(len(shape.sizes)))
    return replace(usual := mean_over_accum(shape), factors={Cause.ZEROED: last, **usual.factors})


def clip_each(shape: WindowShape) -> AccumulationLoop:
    """As weighted_mean, but clipped after each backward: what has been added so far is clipped again and again."""
    return AccumulationLoop(clips=True)


def scale_doubles(shape: WindowShape) -> AccumulationLoop:
    """As weighted_mean, but the gradient scale doubles before the last backward, as when its growth comes up midway."""
    return AccumulationLoop(doubles=True)


def uneven_factors(shape: WindowShape) -> dict[Cause, Factors]:
    """Return what the mean of means makes of micro-batches that differ in size, and of weights that differ besides."""
    size, weight = shape.samples / len(shape.sizes), shape.weight / shape.samples
    pairs = list(zip(shape.sizes, shape.weights, strict=True))
    return {
        Cause.RAGGED: tuple(size / n for n in shape.sizes),
        Cause.CLASS_WEIGHTS: tuple(weight / (w / n) for n, w in pairs),
    }


LOOPS: dict[str, Callable[[WindowShape], AccumulationLoop]] = {
    loop.__name__: loop
    for loop in (
        *(weighted_mean, mean_over_accum, mean_of_means, sum_of_means),
        *(dropped_tail, zero_grad_each, clip_each, scale_doubles),
    )
}
