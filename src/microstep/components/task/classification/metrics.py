"""Metrics of classification, from a confusion matrix that stays on the device."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from microstep.types.data import Mix

STATE_KEYS = ("confusion", "loss_sum", "extra_weight")


class ClassificationMetrics:
    """Loss, accuracy, macro and weighted F1 over all samples since the last reset.

    scikit-learn computes the same from lists of labels, at a few milliseconds a call; these are its formulas over the
    confusion matrix, with its convention that a score without a denominator is 0.
    """

    monitor = "accuracy"
    direction: Literal["max", "min"] = "max"

    def __init__(self, classes: int, class_weights: Tensor | None, device: torch.device) -> None:
        self.classes = classes
        self.class_weights = class_weights
        self.precise = torch.float32 if device.type == "mps" else torch.float64
        self.confusion = torch.zeros(classes * classes, dtype=torch.int64, device=device)
        self.loss_sum = torch.zeros((), dtype=self.precise, device=device)
        self.extra_weight = torch.zeros_like(self.loss_sum)  #: of mixed samples, beyond that of their own labels
        self.one = torch.ones((), dtype=torch.int64, device=device)

    def reset(self) -> None:
        """Forget every sample."""
        for name in STATE_KEYS:
            getattr(self, name).zero_()

    def state_dict(self) -> dict[str, Any]:
        """Return the sums."""
        return {name: getattr(self, name) for name in STATE_KEYS}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up saved sums."""
        for name in STATE_KEYS:
            getattr(self, name).copy_(state[name])

    def update(self, outputs: Tensor, targets: Tensor, loss_sum: Tensor, mix: Mix | None = None) -> None:
        """Add a batch: logits (N × classes), labels (N), its summed loss. Of mixed samples their own label counts."""
        cells = targets * self.classes + outputs.argmax(1)
        self.confusion.index_add_(0, cells, self.one.expand(len(cells)))
        self.loss_sum += loss_sum.detach()
        if mix is not None and self.class_weights is not None:
            own, partners = self.class_weights[targets], self.class_weights[mix.targets]
            self.extra_weight += ((1 - mix.share) * (partners - own)).sum()

    def compute(self) -> dict[str, float]:
        """Return loss, accuracy, f1_macro, f1_weighted; a class that is absent counts as 0 in the macro mean."""
        confusion = self.confusion.view(self.classes, self.classes).cpu().double()
        hits, support, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
        f1 = 2 * hits / (support + predicted).clamp(min=1)
        weighted = (f1 * support).sum() / support.sum().clamp(min=1)
        return self.running() | {"f1_macro": f1.mean().item(), "f1_weighted": weighted.item()}

    def running(self) -> dict[str, float]:
        """Return loss and accuracy."""
        confusion = self.confusion.view(self.classes, self.classes)
        counts = confusion.sum(1)
        weights = counts if self.class_weights is None else counts * self.class_weights
        hits = confusion.diagonal().sum()
        sums = (self.loss_sum, weights.sum() + self.extra_weight, hits, counts.sum())
        loss, weight, right, samples = torch.stack(
            [value.to(self.precise) for value in sums]
        ).tolist()  # one wait, not four
        return {"loss": loss / weight if weight else 0.0, "accuracy": right / samples if samples else 0.0}
