"""Classification task: weighted cross-entropy with label smoothing, accuracy and F1, scikit-learn's report."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from microstep.components.task.classification.metrics import ClassificationMetrics
from microstep.errors import ConfigError, DataError
from microstep.types.data import Mix, Predictions, Report


class Classification:
    """Single-label classification.

    Args:
        class_names: name of each label.
        train_targets: labels of the training split, for `class_weights=balanced`.
        device: device of the outputs and targets.
        class_weights: null (all 1), `balanced` (samples / (classes × count), as in scikit-learn), or one per class.
        label_smoothing: fraction of the target spread evenly over all classes (Szegedy et al., CVPR 2016).

    Raises:
        ConfigError: if `class_weights` is another word, or not one positive number per class.
        DataError: if it is `balanced` and a class has no training samples.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        train_targets: Tensor,
        device: torch.device,
        class_weights: Sequence[float] | str | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        self.class_names, self.label_smoothing, self.device = tuple(class_names), label_smoothing, device
        self.class_weights = resolve_class_weights(class_weights, train_targets, len(self.class_names))
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.device_class_weights = None if self.class_weights is None else self.class_weights.to(device, dtype)

    def weight(self, targets: Tensor) -> Tensor:
        """Return the weight of each sample, float64 on the CPU: that of its class, or 1."""
        if self.class_weights is None:
            return torch.ones(len(targets), dtype=torch.float64)
        return self.class_weights[targets.cpu()]

    def loss_sum(self, outputs: Tensor, targets: Tensor, mix: Mix | None = None) -> Tensor:
        """Return the summed cross-entropy (0-d). Divided by Σ w[y], it equals torch's weighted mean.

        Args:
            outputs: N × classes logits.
            targets: N labels.
            mix: partners of mixed samples. The loss of a sample with labels a and b is λ · loss(a) + (1 − λ) · loss(b).
        """
        logits = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        if mix is None:
            return self.cross_entropy(logits, targets, "sum")
        own, partners = (self.cross_entropy(logits, labels, "none") for labels in (targets, mix.targets))
        return torch.lerp(partners, own, mix.share.to(logits.dtype)).sum()

    def cross_entropy(self, logits: Tensor, targets: Tensor, reduction: str) -> Tensor:
        weights = None if self.device_class_weights is None else self.device_class_weights.to(logits.dtype)
        return F.cross_entropy(logits, targets, weights, reduction=reduction, label_smoothing=self.label_smoothing)

    def metrics(self) -> ClassificationMetrics:
        return ClassificationMetrics(len(self.class_names), self.device_class_weights, self.device)

    def decide(self, outputs: Tensor) -> Tensor:
        """Return the label with the largest logit of each row, the first one of equals."""
        return outputs.argmax(1)

    def report(self, predictions: Predictions, directory: Path) -> Report:
        from microstep.components.task.classification.report import write_report  # imports matplotlib

        return write_report(predictions, self.class_names, directory)


def resolve_class_weights(class_weights: Sequence[float] | str | None, targets: Tensor, classes: int) -> Tensor | None:
    subject = f"task.class_weights={class_weights}"
    if class_weights is None:
        return None
    if class_weights == "balanced":
        counts = torch.bincount(targets, minlength=classes).double()
        if not counts.all():
            raise DataError(subject, "a class has no training samples", "give the weights as a list")
        return counts.sum() / (classes * counts)
    if isinstance(class_weights, str):
        raise ConfigError(subject, "no such option", "null, balanced, or one number a class")
    weights = torch.tensor([float(w) for w in class_weights], dtype=torch.float64)
    if len(weights) != classes or not (weights > 0).all() or not weights.isfinite().all():
        reason = f"it must be {classes} positive numbers, one a class"
        raise ConfigError(f"task.class_weights={list(class_weights)}", reason, "or balanced, or null")
    return weights
