"""Metrics beyond those of the confusion matrix, over evaluated batches."""

from collections.abc import Callable, Sequence
from statistics import fmean

import torch
import torch.nn.functional as F
from torch import Tensor

from microstep.utils.tensors import finite_rows

NUM_BINS = 15  #: of equal width, as in Guo et al.


def count_sums(values: Tensor) -> Tensor:
    """Return the sum of N values, and N."""
    return torch.stack([values, torch.ones_like(values)]).sum(1)


def sum_top5(logits: Tensor, targets: Tensor) -> Tensor:
    """Return hits and samples. Of equal logits the first one ranks higher."""
    best = logits.argsort(dim=1, descending=True, stable=True)[:, :5]
    return count_sums(((best == targets[:, None]).any(1) & finite_rows(logits)).long())


def sum_bins(logits: Tensor, targets: Tensor) -> Tensor:
    """Return confidences − hits by bin, and samples. Outputs that are not finite are misses with confidence 0."""
    finite = finite_rows(logits)
    confidence, predicted = logits.softmax(1).where(finite[:, None], 0).max(1)
    bins = ((confidence * NUM_BINS).ceil().long() - 1).clamp(0, NUM_BINS - 1)
    gaps = confidence - ((predicted == targets) & finite).to(confidence.dtype)
    return gaps.new_zeros(2, NUM_BINS).index_add_(1, bins, torch.stack([gaps, torch.ones_like(gaps)]))


def average_sums(parts: Sequence[Tensor]) -> float:
    """Return Σ |sums| / Σ samples: a mean, or the expected calibration error (Guo et al., ICML 2017)."""
    sums, samples = torch.stack(list(parts)).sum(0).cpu().double()
    return float(sums.abs().sum() / samples.sum())


def area_under_roc(parts: Sequence[Tensor]) -> float:
    """Return the mean area under the ROC curve of each class against all others, over classes with both kinds."""
    from sklearn.metrics import roc_auc_score

    outputs, labels = split_columns(parts)
    scores = outputs.double().softmax(1)
    if scores.isnan().any() or len(classes := set(labels.tolist())) < 2:
        return float("nan")
    return fmean(roc_auc_score(labels == c, scores[:, c]) for c in sorted(classes))


OwnMetric = Callable[[Tensor, Tensor], float]  #: of N × C outputs and N labels, on the CPU
Summary = tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Sequence[Tensor]], float]]


def join_columns(outputs: Tensor, targets: Tensor) -> Tensor:
    return torch.cat([outputs, targets[:, None]], 1).float().cpu()


def split_columns(parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    rows = torch.cat(list(parts))
    return rows[:, :-1], rows[:, -1].long()


def keep_outputs(metric: OwnMetric) -> Summary:
    """Return what to keep for a metric of all outputs and labels, and its value."""
    return join_columns, lambda parts: float(metric(*split_columns(parts)))


def get_name(metric: str | OwnMetric) -> str:
    """Return a name as it is, or that of a function, also in a `functools.partial`, or of an object's class."""
    if isinstance(metric, str):
        return metric
    function = getattr(metric, "func", metric)
    return str(getattr(function, "__name__", type(function).__name__))


#: What to keep of the N × C logits and N labels of a batch, and the value of all that was kept.
EXTRA_METRICS: dict[str, Summary] = {
    "top5": (sum_top5, average_sums),
    "auroc": (join_columns, area_under_roc),
    "nll": (lambda logits, targets: count_sums(F.cross_entropy(logits, targets, reduction="none")), average_sums),
    "ece": (sum_bins, average_sums),
}
