"""Losses of classification: one number for each sample, from its logits and its label."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from microstep.errors import ConfigError
from microstep.types.data import Mix

SampleLoss = Callable[[Tensor, Tensor], Tensor]  #: (outputs of N × …, targets of N × …) → N losses


def sum_losses(loss: SampleLoss, outputs: Tensor, targets: Tensor, mix: Mix | None) -> Tensor:
    """Return the sum of the losses (0-d). That of a mixed sample is share · own loss + (1 − share) · the partner's."""
    own = loss(outputs, targets)
    return own.sum() if mix is None else torch.lerp(loss(outputs, mix.targets), own, mix.share.to(own.dtype)).sum()


def weigh_losses(loss: SampleLoss, class_weights: Tensor | None, outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the losses of N samples, each times the weight of its class. Raise ConfigError if they are not N."""
    losses = loss(outputs, targets)
    if losses.shape != targets.shape[:1]:
        reason = f"for {len(targets)} samples it returns a tensor of shape {tuple(losses.shape)}, not one number each"
        raise ConfigError("task.loss", reason, "let it return the loss of each sample, as reduction='none' does")
    return losses if class_weights is None else losses * class_weights[targets]


def smooth_targets(targets: Tensor, outputs: Tensor, label_smoothing: float) -> Tensor:
    """Return the N × C target distribution: (1 − label_smoothing) · one-hot + label_smoothing / C."""
    classes = outputs.shape[1]
    return F.one_hot(targets, classes).to(outputs.dtype) * (1 - label_smoothing) + label_smoothing / classes


def focal(outputs: Tensor, targets: Tensor, gamma: float = 2.0, label_smoothing: float = 0.0) -> Tensor:
    """Return the focal losses (Lin et al., ICCV 2017): −Σ q · (1 − p)^gamma · log p over classes, for targets q."""
    log_p = outputs.log_softmax(1)
    rest = (-log_p.expm1()).clamp(min=torch.finfo(log_p.dtype).tiny)  # at 0, a power below 1 has no finite gradient
    return -(smooth_targets(targets, outputs, label_smoothing) * rest**gamma * log_p).sum(1)


def bce(outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return the binary cross-entropy of each class against the others, as a mean (Wightman et al., 2021)."""
    soft = smooth_targets(targets, outputs, label_smoothing)
    return F.binary_cross_entropy_with_logits(outputs, soft, reduction="none").mean(1)


LOSSES: dict[str, Callable[..., Tensor]] = {"focal": focal, "bce": bce}  #: by the name for `task.loss`
