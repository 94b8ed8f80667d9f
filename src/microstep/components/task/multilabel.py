"""Multi-label classification: any number of labels a sample."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import compress
from math import isnan, nan
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import microstep.components.task.known_targets as known
from microstep.errors import ConfigError
from microstep.types.data import Answer, Mix, Predictions, Report

DIRECTIONS: known.Directions = {"loss": "min", "f1_micro": "max", "f1_macro": "max", "map": "max"}
MAX_CURVES = 20  #: labels with a precision-recall curve


class MultiLabel:
    """Multi-label classification. The loss is the mean over known labels.

    Args:
        class_names: name of each label.
        train_targets: N × C of 0, 1 and NaN, which means unknown.
        device: device of the outputs and targets.
        loss: callable from N × C outputs and targets to losses, N × C or N; null is binary cross-entropy.
        pos_weight: weight of the positives of each label in binary cross-entropy; null is 1.
        fitted: thresholds fitted to a validation split; None is 0.5 for each label.

    Raises:
        ConfigError: if `pos_weight` is not one positive number a label.
        DataError: if the targets are no labels, or a training sample has no known label.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        train_targets: Tensor,
        device: torch.device,
        loss: known.Loss | None = None,
        pos_weight: Sequence[float] | None = None,
        fitted: Mapping[str, Any] | None = None,
    ) -> None:
        if not fitted:  # otherwise there may be no training split
            is_labels = train_targets.ndim == 2 and known.are_labels(train_targets)
            known.check_train_targets(train_targets, "multilabel", "labels", is_labels)
        self.class_names, self.outputs, self.device = tuple(class_names), len(class_names), device
        self.fitted: Mapping[str, Any] = fitted or {"thresholds": [0.5] * self.outputs}
        if pos_weight is not None and (len(pos_weight) != self.outputs or not all(w > 0 for w in pos_weight)):
            subject = f"task.pos_weight={list(pos_weight)}"
            raise ConfigError(subject, f"it must be {self.outputs} positive numbers, one a label", "or null")
        self.loss, self.pos_weight = loss or self.cross_entropy, torch.tensor(pos_weight or 1.0, device=device)

    weight = staticmethod(known.weigh_samples)

    def cross_entropy(self, outputs: Tensor, targets: Tensor) -> Tensor:
        weight = self.pos_weight.to(outputs.dtype)
        return F.binary_cross_entropy_with_logits(outputs, targets, reduction="none", pos_weight=weight)

    def loss_sum(self, outputs: Tensor, targets: Tensor, mix: Mix | None = None) -> Tensor:
        return known.sum_known_losses(self.loss, outputs, targets, mix)

    def metrics(self, keep: bool = True) -> known.KnownTargetMetrics:
        """Return loss, f1_micro and f1_macro at a probability of 0.5, and map, the mean average precision."""
        size = 3, self.outputs
        return known.KnownTargetMetrics("map", DIRECTIONS, size, count_decisions, score_labels, self.device, keep)

    def train_metrics(self) -> known.KnownTargetMetrics:
        """Return the metrics without `map`, which would need the outputs of a whole epoch."""
        return self.metrics(keep=False)

    def fit(self, predictions: Predictions) -> None:
        """Choose the threshold of each label that maximizes F1."""
        pairs = known_outputs(predictions.outputs, predictions.targets)
        self.fitted = {"thresholds": [fit_threshold(*pair) for pair in pairs]}

    @property
    def borders(self) -> Tensor:
        """C logits, float64 on the CPU: labels with a larger one are predicted."""
        return torch.tensor(self.fitted["thresholds"], dtype=torch.float64).reshape(self.outputs).logit()

    def decide(self, outputs: Tensor) -> Tensor:
        """Return whether each label is predicted (N × C, bool)."""
        return outputs.double() > self.borders.to(outputs.device)

    def predict(self, outputs: Tensor) -> dict[str, Tensor]:
        return {"prediction": self.decide(outputs), "probabilities": outputs.sigmoid()}

    def answer(self, outputs: Tensor) -> list[Answer]:
        answers, columns = [], [f"probability_{name}" for name in self.class_names]
        for decisions, values in zip(self.decide(outputs).tolist(), outputs.double().sigmoid().tolist(), strict=True):
            names, shares = tuple(compress(self.class_names, decisions)), (f"{value:.6f}" for value in values)
            cells = {"prediction": "|".join(names), **dict(zip(columns, shares, strict=True))}
            answers.append(Answer(cells, ", ".join(names) or "none", names))
        return answers

    def report(self, predictions: Predictions, directory: Path) -> Report:
        """Write a report. The score of a sample is its F1 over known labels; 1 if none is present or predicted."""
        from microstep.components.task.known_report import write_report  # imports matplotlib

        outputs, targets, names = predictions.outputs.double(), predictions.targets, self.class_names
        counts = found, predicted, present = count_decisions(outputs, targets, self.borders)
        scores = {"known": (~targets.isnan()).sum(0), "present": present.long(), "threshold": self.borders.sigmoid()}
        scores |= {"precision": found / predicted.clamp(min=1), "recall": found / present.clamp(min=1)}
        scores |= {"f1": compute_f1(counts), "f1_at_0.5": compute_f1(count_decisions(outputs, targets))}
        scores["average_precision"] = torch.tensor(average_precisions(outputs, targets))
        samples = count_decisions(outputs.T, targets.T, self.borders[:, None])
        values = compute_f1(samples).where(samples[1:].sum(0) > 0, 1).where(known.count_known(targets) > 0, nan)
        table = {"label": list(names)} | {name: column.tolist() for name, column in scores.items()}
        cells = [format_labels(names, row) for row in targets.tolist()]
        report = write_report(predictions, table, cells, self, ("f1", values), directory)
        pairs = zip(names[:MAX_CURVES], known_outputs(outputs.sigmoid(), targets), strict=False)
        curves = {name: (torch.from_numpy(truth), torch.from_numpy(score)) for name, (truth, score) in pairs}
        return replace(report, curves=curves)


def format_labels(names: Sequence[str], targets: Sequence[float]) -> str:
    """Return the labels of a sample, those that are unknown with a question mark."""
    pairs = zip(names, targets, strict=True)
    return "|".join(f"?{name}" if isnan(target) else name for name, target in pairs if target != 0)


def count_decisions(outputs: Tensor, targets: Tensor, borders: float | Tensor = 0.0) -> Tensor:
    """Return the number of labels found, predicted (outputs above the border) and present, if known: 3 × C."""
    predicted, present = (outputs > borders) & ~targets.isnan(), targets == 1
    return torch.stack([predicted & present, predicted, present]).sum(1).to(outputs.dtype)


def compute_f1(counts: Tensor) -> Tensor:
    """Return 2 · found ÷ (predicted + present); 0 for a label that has neither, as in scikit-learn."""
    return 2 * counts[0] / (counts[1] + counts[2]).clamp(min=1)


def score_labels(counts: Tensor, *kept: Tensor) -> dict[str, float]:
    """Return f1_micro, f1_macro and, of all outputs and targets, the mean average precision of labels that occur."""
    scores = {"f1_micro": compute_f1(counts.sum(1)).item(), "f1_macro": compute_f1(counts).mean().item()}
    occurring = [value for value in average_precisions(*kept) if not isnan(value)] if kept else []
    return scores | ({"map": fmean(occurring or [0.0])} if kept else {})


def average_precisions(outputs: Tensor, targets: Tensor) -> list[float]:
    """Return the average precision of each label; NaN for one that never occurs."""
    from sklearn.metrics import average_precision_score  # slow to import

    pairs = known_outputs(outputs, targets)
    return [float(average_precision_score(*pair)) if pair[0].any() else nan for pair in pairs]


def known_outputs(outputs: Tensor, targets: Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return for each label whether the samples with a known target have it, and their outputs."""
    pairs = zip(outputs.nan_to_num(-1e30).T, targets.T, strict=True)
    return [((target[~target.isnan()] == 1).numpy(), output[~target.isnan()].numpy()) for output, target in pairs]


def fit_threshold(present: np.ndarray, outputs: np.ndarray) -> float:
    """Return the probability above which a label is predicted with the highest F1; 0.5 if it never occurs."""
    from sklearn.metrics import precision_recall_curve  # slow to import

    if not present.any():
        return 0.5
    precision, recall, borders = precision_recall_curve(present, outputs)
    best = int(np.argmax((precision * recall / np.maximum(precision + recall, 1e-12))[:-1]))
    middle = borders[max(best - 1, 0) : best + 1].mean(dtype=np.float64)  # rounding changes no decision
    return float(torch.tensor(middle if best else borders[0] - 1, dtype=torch.float64).sigmoid())
