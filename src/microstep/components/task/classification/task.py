"""Classification task: a weighted loss with label smoothing, accuracy and F1, scikit-learn's report."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import log
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from microstep.components.task.classification.extra_metrics import OwnMetric
from microstep.components.task.classification.metrics import ClassificationMetrics
from microstep.components.task.classification.probabilities import (
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    finite_softmax,
    fit_temperature,
)
from microstep.components.task.known_targets import check_train_targets
from microstep.components.task.losses import LOSSES, sum_losses, weigh_losses
from microstep.errors import ConfigError, DataError
from microstep.types.data import Answer, Mix, Predictions, Report
from microstep.utils.text import truncate_middle

TOP_K = 5  #: classes listed for each image without a label
UNSURE_BELOW = 0.5  #: a caption is red if the confidence is below this
CAPTION_LETTERS = 14  #: of a class in a caption


class Classification:
    """Single-label classification.

    Args:
        class_names: name of each label.
        train_targets: labels of the training split, for `class_weights=balanced`.
        device: device of the outputs and targets.
        class_weights: null (all 1), `balanced` (samples / (classes × count), as in scikit-learn), or one per class.
        label_smoothing: fraction of the target spread evenly over all classes (Szegedy et al., CVPR 2016).
        loss: null or `cross_entropy`, `focal`, `bce`, or a function of logits and labels that returns N losses.
        metrics: metrics beyond loss, accuracy and F1: names, or functions of all outputs and labels. `nll` is
            added if the loss or its labels are others.
        fitted: temperature fitted to a validation split.

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
        loss: Callable[[Tensor, Tensor], Tensor] | str | None = None,
        metrics: Sequence[str | OwnMetric] | str | None = None,
        fitted: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        check_train_targets(train_targets, "classification", "classes", not train_targets.is_floating_point())
        self.fitted: Mapping[str, Sequence[float]] = fitted or {}
        self.class_names, self.label_smoothing, self.device = tuple(class_names), label_smoothing, device
        self.class_weights = resolve_class_weights(class_weights, train_targets, len(self.class_names))
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.device_class_weights = None if self.class_weights is None else self.class_weights.to(device, dtype)
        loss = None if loss == "cross_entropy" else loss
        self.loss = partial(LOSSES[loss], label_smoothing=label_smoothing) if isinstance(loss, str) else loss
        extra = [metrics] if isinstance(metrics, str) else metrics or []
        self.extra_metrics = ["nll", *extra] if loss or label_smoothing else extra

    def weight(self, targets: Tensor) -> Tensor:
        """Return the weight of each sample, float64 on the CPU: that of its class, or 1."""
        if self.class_weights is None:
            return torch.ones(len(targets), dtype=torch.float64)
        return self.class_weights[targets.cpu()]

    def loss_sum(self, outputs: Tensor, targets: Tensor, mix: Mix | None = None) -> Tensor:
        """Return the weighted sum of the losses (0-d). Divided by Σ w[y], cross-entropy equals torch's weighted mean.

        Args:
            outputs: N × classes logits.
            targets: N labels.
            mix: partners of mixed samples. The loss of a sample with labels a and b is λ · loss(a) + (1 − λ) · loss(b).
        """
        logits = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        weights = None if self.device_class_weights is None else self.device_class_weights.to(logits.dtype)
        if self.loss is not None:
            return sum_losses(partial(weigh_losses, self.loss, weights), logits, targets, mix)
        cross_entropy = partial(F.cross_entropy, weight=weights, label_smoothing=self.label_smoothing)
        if mix is None:
            return cross_entropy(logits, targets, reduction="sum")
        return sum_losses(partial(cross_entropy, reduction="none"), logits, targets, mix)

    def metrics(self) -> ClassificationMetrics:
        return ClassificationMetrics(len(self.class_names), self.device_class_weights, self.device, *self.extra_metrics)

    def decide(self, outputs: Tensor) -> Tensor:
        """Return the label with the largest logit of each row, the first one of equals."""
        return outputs.argmax(1)

    @property
    def temperature(self) -> float | None:
        """Return what to divide the logits by for calibrated confidences; None if it is not known."""
        found = (self.fitted.get("temperature") or [0.0])[0]
        return found if MIN_TEMPERATURE <= found <= MAX_TEMPERATURE else None

    def fit(self, predictions: Predictions) -> None:
        found = fit_temperature(predictions.outputs, predictions.targets)
        self.fitted = {} if found is None else {"temperature": [found]}

    def average_views(self, outputs: Tensor) -> Tensor:
        """Return the logits of the mean probabilities of V × N × classes logits; of equal views, their own logits."""
        logits = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        scale = logits.logsumexp(2, keepdim=True)
        return (logits - scale).logsumexp(0) - log(len(logits)) + scale.mean(0)

    def predict(self, outputs: Tensor) -> dict[str, Tensor]:
        """Return the class (N) and the calibrated probabilities (N × C) for N × C logits, to answer and to export."""
        return {"prediction": self.decide(outputs), "probabilities": (outputs / (self.temperature or 1.0)).softmax(1)}

    def answer(self, outputs: Tensor) -> list[Answer]:
        """Return the most probable classes for N × C logits, calibrated; of equally probable ones, the first wins."""
        probabilities = self.predict(outputs.double())["probabilities"]
        confidence, classes = probabilities.sort(dim=1, descending=True, stable=True)
        found = zip(confidence[:, :TOP_K].tolist(), classes[:, :TOP_K].tolist(), strict=True)
        return [make_answer([self.class_names[c] for c in row], shares) for shares, row in found]

    def write_probabilities(self, predictions: Predictions, directory: Path) -> None:
        """Write probabilities.npz: `index` (N), `label` (N) and `probabilities` (N × classes; zeros if not finite)."""
        index, label = predictions.indices.numpy(), predictions.targets.numpy()
        probabilities = finite_softmax(predictions.outputs).float().numpy()
        np.savez_compressed(directory / "probabilities.npz", index=index, label=label, probabilities=probabilities)

    def report(self, predictions: Predictions, directory: Path) -> Report:
        from microstep.components.task.classification.report import write_report  # imports matplotlib

        return write_report(predictions, self.class_names, directory, self.temperature)


def make_answer(names: Sequence[str], confidence: Sequence[float]) -> Answer:
    cells: dict[str, str] = {}
    for n, (name, p) in enumerate(zip(names, confidence, strict=True), 1):
        cells |= {f"class_{n}": name, f"confidence_{n}": f"{p:.6f}"}
    caption = f"{truncate_middle(names[0], CAPTION_LETTERS)} {confidence[0]:.0%}"
    return Answer(cells, caption, (names[0],), confidence[0] < UNSURE_BELOW)


def resolve_class_weights(class_weights: Sequence[float] | str | None, targets: Tensor, classes: int) -> Tensor | None:
    if class_weights is None:
        return None
    subject = f"task.class_weights={class_weights if isinstance(class_weights, str) else list(class_weights)}"
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
        raise ConfigError(subject, reason, "or balanced, or null")
    return weights
