"""Classification metrics, computed from a confusion matrix that stays on the device."""

from typing import Any, Literal

import torch
from torch import Tensor

from microstep.components.task.classification.extra_metrics import EXTRA_METRICS, OwnMetric, get_name, keep_outputs
from microstep.types.data import Mix

STATE_KEYS = ("confusion", "nonfinite", "loss_sum", "extra_weight")
DEFAULTS, MINIMIZED = ("loss", "accuracy", "f1_macro", "f1_weighted"), ("loss", "nll", "ece")


class ClassificationMetrics:
    """Loss, accuracy, macro F1 and weighted F1 over all samples since the last reset.

    The scores equal scikit-learn's with `zero_division=0`, without copying labels to the CPU in every step. A sample
    whose outputs are not finite counts as wrong, and as predicted to be of no class. The class weights are those of the
    loss, on `device`; None weights all classes by 1. `extra` are further metrics: names, or functions of outputs and
    labels. Those beyond the confusion matrix are computed for evaluated batches only, whose losses have no gradient, so
    that training is not slowed down.
    """

    monitor = "accuracy"
    direction: Literal["max", "min"] = "max"

    def __init__(
        self, classes: int, class_weights: Tensor | None, device: torch.device, *extra: str | OwnMetric
    ) -> None:
        self.classes, self.class_weights = classes, class_weights
        found = {get_name(m): keep_outputs(m) if callable(m) else EXTRA_METRICS.get(m) for m in extra}
        names = dict.fromkeys([*DEFAULTS, *found])
        self.directions: dict[str, Literal["max", "min"]] = {n: "min" if n in MINIMIZED else "max" for n in names}
        self.summaries = {name: summary for name, summary in found.items() if summary}
        self.kept: dict[str, list[Tensor]] = {name: [] for name in self.summaries}
        self.sum_dtype = torch.float32 if device.type == "mps" else torch.float64
        self.confusion = torch.zeros(classes * classes, dtype=torch.int64, device=device)
        self.nonfinite = torch.zeros(classes, dtype=torch.int64, device=device)  #: samples by true class
        self.loss_sum = torch.zeros((), dtype=self.sum_dtype, device=device)
        self.extra_weight = torch.zeros_like(self.loss_sum)  #: of mixed samples, beyond that of their own labels

    def reset(self) -> None:
        for name in STATE_KEYS:
            getattr(self, name).zero_()
        self.kept = {name: [] for name in self.kept}

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in STATE_KEYS}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in STATE_KEYS:
            getattr(self, name).copy_(state.get(name, torch.zeros(())))  # 0.1.0 had no `nonfinite`

    def update(self, outputs: Tensor, targets: Tensor, loss_sum: Tensor, mix: Mix | None = None) -> None:
        """Add a batch of N × classes logits. Accuracy and F1 of mixed samples refer to `targets`."""
        largest, predicted = outputs.max(1)
        finite = largest.isfinite().long()
        self.confusion.index_add_(0, targets * self.classes + predicted, finite)
        self.nonfinite.index_add_(0, targets, 1 - finite)
        self.loss_sum += loss_sum.detach()
        for name, parts in () if loss_sum.requires_grad else self.kept.items():
            parts.append(self.summaries[name][0](outputs.to(self.sum_dtype), targets))
        if mix is not None and self.class_weights is not None:
            own, partners = self.class_weights[targets], self.class_weights[mix.targets]
            self.extra_weight += ((1 - mix.share) * (partners - own)).sum()

    def compute(self) -> dict[str, float]:
        """Return the metrics. Classes without samples count as 0 in f1_macro, and not in balanced_accuracy."""
        confusion = self.confusion.view(self.classes, self.classes).cpu().double()
        hits, predicted = confusion.diagonal(), confusion.sum(0)
        support = confusion.sum(1) + self.nonfinite.cpu()
        f1 = 2 * hits / (support + predicted).clamp(min=1)
        weighted = (f1 * support).sum() / support.sum().clamp(min=1)
        recall = (hits / support.clamp(min=1)).sum() / support.count_nonzero().clamp(min=1)
        found = {"f1_macro": f1.mean().item(), "f1_weighted": weighted.item(), "balanced_accuracy": recall.item()}
        found |= {name: self.summaries[name][1](parts) for name, parts in self.kept.items() if parts}
        found |= self.running_values()
        return {name: found[name] for name in self.directions if name in found}

    def running_values(self) -> dict[str, float]:
        """Return loss and accuracy, with a single synchronization of the device."""
        confusion = self.confusion.view(self.classes, self.classes)
        counts = confusion.sum(1) + self.nonfinite
        weights = counts if self.class_weights is None else counts * self.class_weights
        hits = confusion.diagonal().sum()
        sums = (self.loss_sum, weights.sum() + self.extra_weight, hits, counts.sum())
        loss, weight, correct, samples = torch.stack([value.to(self.sum_dtype) for value in sums]).tolist()
        return {"loss": loss / weight if weight else 0.0, "accuracy": correct / samples if samples else 0.0}
