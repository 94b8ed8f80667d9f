"""Evaluates a model on a split and writes the split's report."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from microstep.types.data import Batch, Predictions, Report, Split
from microstep.types.protocols import Metrics, Precision, Task
from microstep.utils.files import write_directory
from microstep.utils.tensors import finite_rows

log = logging.getLogger("microstep.notice")


class ModelWithWeights(nn.Module):
    """A model that is called with other weights than its own, which stay unchanged.

    Args:
        model: the model.
        weights: entries of its state dict that replace its own.
    """

    def __init__(self, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.model, self.weights = model, dict(weights)

    def forward(self, inputs: Tensor) -> Any:
        return functional_call(self.model, self.weights, (inputs,))


def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    precision: Precision,
    task: Task,
    metrics: Metrics,
    keep: Callable[[Batch, Tensor], None] = lambda batch, outputs: None,
) -> dict[str, float]:
    """Return the metrics over all batches with the model in evaluation mode; `keep` is called with every output.

    A warning counts the samples whose outputs are not finite.
    """
    nonfinite: list[Tensor] = []
    for batch, outputs in iter_outputs(model, batches, precision):
        nonfinite.append((~finite_rows(outputs)).sum())
        metrics.update(outputs, batch.targets, task.loss_sum(outputs, batch.targets))
        keep(batch, outputs)
    if count := int(sum(nonfinite)):
        log.warning("the model's outputs are not finite for %s samples, which count as wrong", f"{count:,}")
    return metrics.compute()


def iter_outputs(model: nn.Module, batches: Iterable[Batch], precision: Precision) -> Iterator[tuple[Batch, Tensor]]:
    """Yield each batch with the model's outputs, in evaluation mode and without gradients."""
    model.eval()
    for batch in map(precision.cast, batches):
        with torch.inference_mode(), precision.forward():
            outputs = model(batch.inputs)
        yield batch, outputs


@dataclass
class PredictionCollector:
    """Collects outputs, targets and indices on the CPU; outputs are at least float32."""

    rows: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))  #: of the batches

    def __call__(self, batch: Batch, outputs: Tensor) -> None:
        dtype = torch.promote_types(outputs.dtype, torch.float32)
        self.device = batch.indices.device
        self.rows.append((outputs.to("cpu", dtype), batch.targets.cpu(), batch.indices.cpu()))

    def predictions(self, split: Split) -> Predictions:
        outputs, targets, indices = (torch.cat(column) for column in zip(*self.rows, strict=True))
        return Predictions(outputs, targets, indices, split, self.device)


def evaluate_and_report(
    model: nn.Module,
    split: Split,
    batches: Iterable[Batch],
    precision: Precision,
    task: Task,
    metrics: Metrics,
    directory: Path,
) -> tuple[dict[str, float], Report]:
    """Return a split's metrics and write its report to `directory`, both from the same outputs."""
    kept = PredictionCollector()
    values = evaluate(model, batches, precision, task, metrics, kept)
    with write_directory(directory) as draft:
        report = task.report(kept.predictions(split), draft)
    moved = {title: directory / file.relative_to(draft) for title, file in report.images.items()}
    return values, replace(report, images=moved)
