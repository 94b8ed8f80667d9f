"""Classification: weighted, label-smoothed cross-entropy; accuracy and F1; scikit-learn's report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from microstep.components.task.classification.metrics import ClassificationMetrics
from microstep.components.task.classification.report import write_report
from microstep.errors import ConfigError, DataError
from microstep.types.data import Mix, Predictions, Report


class Classification:
    """One label a sample out of `class_names`.

    Args:
        class_names: the labels' names, in order.
        train_targets: the training split's labels, for `class_weights: balanced`.
        device: where losses are computed.
        class_weights: null (all 1), `balanced` (n / (classes × count), as scikit-learn's), or one number a class.
        label_smoothing: share of a label that is spread evenly over all classes (Szegedy et al., CVPR 2016).
    """

    def __init__(
        self,
        class_names: Sequence[str],
        train_targets: Tensor,
        device: torch.device,
        class_weights: Sequence[float] | str | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        self.class_names = tuple(class_names)
        self.label_smoothing = label_smoothing
        self.device = device
        self.class_weights = resolve_class_weights(class_weights, train_targets, len(self.class_names))
        precise = torch.float32 if device.type == "mps" else torch.float64
        self.on_device = None if self.class_weights is None else self.class_weights.to(device, precise)

    def weight(self, targets: Tensor) -> Tensor:
        """Return each sample's weight: 1, or its class's."""
        if self.class_weights is None:
            return torch.ones(len(targets), dtype=torch.float64)
        return self.class_weights[targets.cpu()]

    def loss_sum(self, outputs: Tensor, targets: Tensor, mix: Mix | None = None) -> Tensor:
        """Return torch's cross-entropy, weighted and smoothed, summed: over Σ w[y] it is torch's own mean.

        Where samples are mixed, each counts for both labels, by its share: Σ λ·w[a] + (1 − λ)·w[b] is the weight.
        """
        logits = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        if mix is None:
            return self.cross_entropy(logits, targets, "sum")
        own, partners = (self.cross_entropy(logits, labels, "none") for labels in (targets, mix.targets))
        return torch.lerp(partners, own, mix.share.to(logits.dtype)).sum()

    def cross_entropy(self, logits: Tensor, targets: Tensor, reduction: str) -> Tensor:
        """Return the weighted, smoothed loss."""
        weights = None if self.on_device is None else self.on_device.to(logits.dtype)
        return F.cross_entropy(logits, targets, weights, reduction=reduction, label_smoothing=self.label_smoothing)

    def metrics(self) -> ClassificationMetrics:
        """Return fresh metrics: loss, accuracy, macro and weighted F1."""
        return ClassificationMetrics(len(self.class_names), self.on_device, self.device)

    def decide(self, outputs: Tensor) -> Tensor:
        """Return the likeliest label of each row of logits; of equals the first."""
        return outputs.argmax(1)

    def report(self, predictions: Predictions, directory: Path) -> Report:
        """Write scikit-learn's report, the confusion matrix, predictions and worst mistakes."""
        return write_report(predictions, self.class_names, directory)


def resolve_class_weights(class_weights: Sequence[float] | str | None, targets: Tensor, classes: int) -> Tensor | None:
    """Return the class weights, float64; None where all are 1.

    Raises:
        ConfigError: for another word than `balanced`, a wrong count, or a weight that is not positive.
        DataError: where a class to be balanced has no samples.
    """
    if class_weights is None:
        return None
    if class_weights == "balanced":
        counts = torch.bincount(targets, minlength=classes).double()
        if not counts.all():
            raise DataError(
                "task.class_weights=balanced", "a class has no training samples", "give the weights as a list"
            )
        return counts.sum() / (classes * counts)
    if isinstance(class_weights, str):
        raise ConfigError(
            f"task.class_weights={class_weights}", "no such option", "null, balanced, or one number a class"
        )
    weights = torch.tensor([float(w) for w in class_weights], dtype=torch.float64)
    if len(weights) != classes or not (weights > 0).all() or not weights.isfinite().all():
        reason = f"it must be {classes} positive numbers, one a class"
        raise ConfigError(f"task.class_weights={list(class_weights)}", reason, "or balanced, or null")
    return weights
