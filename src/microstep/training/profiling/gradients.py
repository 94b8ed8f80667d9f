"""Computes the loss and gradient of a window in a precision, and their distance from those in fp64."""

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from math import inf, isfinite

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from microstep.components.precision import TorchPrecision, full
from microstep.components.step.standard import accumulate_gradient
from microstep.training.components import PartialComponents
from microstep.types.data import LoadedWindow
from microstep.types.protocols import Precision


@dataclass(frozen=True)
class LossAndGradient:
    """Loss of a window and its gradient."""

    loss: float
    entries: Tensor  #: of all trained parameters in one row, float64, on the CPU; multiplied by the loss scale

    @property
    def finite(self) -> bool:
        return isfinite(self.loss) and bool(self.entries.isfinite().all())


@dataclass(frozen=True)
class PrecisionAccuracy:
    """Distance of a precision's gradient from that in fp64, for the same weights and window."""

    loss_drift: float  #: |loss − fp64's| / |fp64's|
    gradient_drift: float  #: ‖gradient − fp64's‖ / ‖fp64's‖ over all entries
    overflow: float  #: share of entries that are not finite, at the settled scale
    underflow: float  #: share of fp64's entries other than 0 that are 0 here, at that scale
    unscaled_underflow: float | None  #: the same without a scaler; None if there is none
    skipped: int  #: number of times the scale was halved until the gradient was finite
    scale: float
    settled: bool  #: whether the gradient became finite


def compute_reference_gradient(components: PartialComponents, window: LoadedWindow) -> LossAndGradient:
    precision = full(components.device, "float64")
    return compute_gradient(components, precision, copy_without_dropout(components, precision), window)


def measure_accuracy(
    components: PartialComponents, precision: Precision, window: LoadedWindow, reference_gradient: LossAndGradient
) -> PrecisionAccuracy:
    """Return how accurate a precision is. Its scale is settled afterwards, as after the first windows of training."""
    model = copy_without_dropout(components, precision)
    found, skipped = settle_scale(components, precision, model, window)
    scale = precision.loss_scale()
    unscaled = LossAndGradient(found.loss, found.entries / scale)
    unscaled_underflow = None
    if precision.describe()["scaler"]:
        autocast, reason = torch.float16, "without its scaler"
        plain = TorchPrecision("fp16", reason, components.device, autocast=autocast, channels_last=True)
        unscaled_underflow = underflow_share(compute_gradient(components, plain, model, window), reference_gradient)
    return PrecisionAccuracy(
        loss_drift=abs(found.loss - reference_gradient.loss) / (abs(reference_gradient.loss) or 1),
        gradient_drift=relative_distance([(unscaled.entries, reference_gradient.entries)]) if found.finite else inf,
        overflow=1 - found.entries.isfinite().double().mean().item(),
        underflow=underflow_share(unscaled, reference_gradient),
        unscaled_underflow=unscaled_underflow,
        skipped=skipped,
        scale=scale,
        settled=found.finite,
    )


def settle_scale(
    components: PartialComponents, precision: Precision, model: nn.Module, window: LoadedWindow
) -> tuple[LossAndGradient, int]:
    """Return the first finite gradient, scaled, and how often the scale was halved: never if the loss isn't finite."""
    optimizer = components.optimizer(model)
    found, skipped = compute_gradient(components, precision, model, window), 0
    while not found.finite and isfinite(found.loss) and skipped < precision.max_skipped:
        precision.update(optimizer, None)  # halves the scale, and applies nothing
        found, skipped = compute_gradient(components, precision, model, window), skipped + 1
    return found, skipped


def compute_gradient(
    components: PartialComponents, precision: Precision, model: nn.Module, window: LoadedWindow
) -> LossAndGradient:
    components.reseed(window)
    model.zero_grad()
    loss = accumulate_gradient(model, window.batches, window.weight, precision, components.task, None)
    trained = [p for p in model.parameters() if p.requires_grad]
    entries = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
    return LossAndGradient(loss.item(), torch.cat([entry.detach().double().flatten().cpu() for entry in entries]))


def copy_without_dropout(components: PartialComponents, precision: Precision) -> nn.Module:
    """Return a copy of the model in training mode without dropout, whose masks differ from dtype to dtype."""
    model = precision.prepare(deepcopy(components.model)).train()
    for module in model.modules():
        if isinstance(module, _DropoutNd):
            module.eval()
    return model


def underflow_share(gradient: LossAndGradient, reference_gradient: LossAndGradient) -> float:
    nonzero = reference_gradient.entries != 0
    return ((gradient.entries == 0) & nonzero).sum().item() / max(1, int(nonzero.sum()))


def relative_distance(pairs: Iterable[tuple[Tensor, Tensor]], floor: float = 0.0) -> float:
    """Return ‖a − b‖ / max(‖b‖, floor) over all pairs (a, b) together, in float64; x / 0 is infinite for x > 0."""
    norm = torch.linalg.vector_norm
    norms = [(norm(one.double() - other.double()), norm(other.double())) for one, other in pairs]
    gap, size = (norm(torch.stack(column)).item() for column in zip(*norms, strict=True))
    unit = max(size, floor)
    return float(gap / unit) if unit else (inf if gap else 0.0)
