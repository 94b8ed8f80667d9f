"""Why a window's gradient may depend on how it is cut."""

from __future__ import annotations

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


DIVIDE = "divide each micro-batch's summed loss by the weight of the whole window, as rule=weighted_mean does"
NORMS = (
    "put GroupNorm in its place (model=resnet18 has model.norm=group), or fine-tune with frozen BatchNorm "
    "(model=torchvision has model.weights=DEFAULT model.freeze=backbone); a larger batch_size with a smaller accum "
    "narrows it"
)
REMEDIES = {
    Cause.SUM: DIVIDE,
    Cause.LEFTOVER: DIVIDE,
    Cause.RAGGED: DIVIDE,
    Cause.CLASS_WEIGHTS: DIVIDE,
    Cause.DROPPED: "keep the short micro-batches: with the window's weight as the divisor they are no special case",
    Cause.ZEROED: "call optimizer.zero_grad() once a window, not once a micro-batch",
    Cause.CLIPPING: "clip once, after the window's last backward",
    Cause.SCALE: "call scaler.update() once, after the window's step: all of a window needs one scale",
    Cause.NORMALISATION: NORMS,
    Cause.STATISTICS: NORMS,
    Cause.DRAWS: "set dropout to 0; drawn for each micro-batch, its masks are the same in law, not in value",
}
MODEL = (Cause.NORMALISATION, Cause.STATISTICS, Cause.DRAWS)  #: the model's own, whatever the loop
