"""Evaluates a model on a split and writes the split's report."""

import copy
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from microstep.training.components import Components
from microstep.types.data import Batch, Predictions, Split
from microstep.types.events import SplitResult
from microstep.types.protocols import Averaging, Metrics, Precision, Strategy
from microstep.utils.files import write_directory
from microstep.utils.signals import interruptible
from microstep.utils.tensors import finite_rows

log = logging.getLogger("microstep.notice")
T = TypeVar("T")
Keep = Callable[[Tensor, Tensor, Tensor], None]  #: called with the outputs, targets and indices of every batch


def averaged_model(model: nn.Module, average: Averaging) -> nn.Module:
    """Return the model, or a copy with the averaged weights if there are any. The model keeps its own."""
    getattr(average, "refresh", lambda: None)()
    weights = average.weights(model)
    return model if weights is None else copy_with_weights(model, weights)


def copy_with_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    copied = copy.deepcopy(model)
    copied.load_state_dict({**model.state_dict(), **weights})
    return copied


@torch.no_grad()
def recompute_statistics(components: Components, weights: Mapping[str, Tensor], samples: int) -> dict[str, Tensor]:
    """Return the running statistics of the model with other weights: means over batches of that many samples.

    The batches are whole, unless there are fewer samples, and those of epoch 1 without augmentation. Frozen layers are
    left out. Dropout is off, so no random number is drawn.
    """
    model, precision = copy_with_weights(components.model, weights).train(), components.precision
    active = {name: m for name, m in model.named_modules() if isinstance(m, _BatchNorm) and m.training}
    norms = {name: m for name, m in active.items() if m.running_mean is not None}
    model.eval()
    for norm in norms.values():
        norm.reset_running_stats()
        norm.training, norm.momentum = True, None  # None: the mean of all batches
    order, split = components.loaders.draw_order(epoch=1), components.loaders.splits["train"]
    order = order.to(components.device)
    batches = [rows for rows in torch.split(order, samples) if len(rows) == min(samples, len(order))] if norms else []
    split.expect(requests := [(rows, rows) for rows in batches])
    for request in interruptible(requests):
        with precision.forward():
            model(precision.cast(split.fetch(*request)).inputs)
    return {f"{name}.{key}".lstrip("."): value for name, norm in norms.items() for key, value in norm.named_buffers()}


def evaluate(
    model: nn.Module, components: Components, batches: Iterable[Batch], metrics: Metrics, keep: Keep | None = None
) -> dict[str, float]:
    """Return the metrics over all batches with the model in evaluation mode.

    A warning counts the samples whose outputs are not finite.
    """
    nonfinite, own = list[Tensor](), evaluated_batches(model, batches, components)
    for outputs, targets, loss_sum, indices in take_turns(own, components.loaders.strategy):
        nonfinite.append((~finite_rows(outputs)).sum())
        metrics.update(outputs, targets, loss_sum)
        if keep is not None:
            keep(outputs, targets, indices)
    if count := int(sum(nonfinite)):
        log.warning("the model's outputs are not finite for %s samples, which count as wrong", f"{count:,}")
    return metrics.compute()


def evaluated_batches(
    model: nn.Module, batches: Iterable[Batch], components: Components
) -> Iterator[tuple[Tensor, ...]]:
    """Yield outputs, targets, sum of losses and indices of each batch."""
    for batch, outputs in iter_outputs(model, batches, components.precision):
        yield outputs, batch.targets, components.task.loss_sum(outputs, batch.targets), batch.indices


def take_turns(items: Iterable[T], strategy: Strategy) -> Iterator[T]:
    """Yield the items of all ranks in turn, in every rank: the first of each rank, then the second of each, …"""
    own = iter(items)
    while found := [item for item in strategy.gather(next(own, None)) if item is not None]:
        yield from found


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

    def __call__(self, outputs: Tensor, targets: Tensor, indices: Tensor) -> None:
        dtype = torch.promote_types(outputs.dtype, torch.float32)
        self.device = indices.device
        self.rows.append((outputs.to("cpu", dtype), targets.cpu(), indices.cpu()))

    def predictions(self, split: Split) -> Predictions:
        outputs, targets, indices = (torch.cat(column) for column in zip(*self.rows, strict=True))
        return Predictions(outputs, targets, indices, split, self.device)


def evaluate_and_report(
    components: Components, name: str, batches: Iterable[Batch], metrics: Metrics, directory: Path, fit: bool = False
) -> SplitResult:
    """Return a split's metrics and write its report to `directory`, from the same outputs; if `fit`, fit the task.

    A classifier's report on a fold also has the probabilities of all classes.
    """
    kept, task = PredictionCollector(), components.task
    values = evaluate(components.model, components, batches, metrics, kept)
    predictions = kept.predictions(components.loaders.splits[name])
    if fit and hasattr(task, "fit"):
        task.fit(predictions)
    with write_directory(directory) as draft:
        report = task.report(predictions, draft)
        if name == "val" and components.has_folds and hasattr(task, "write_probabilities"):
            task.write_probabilities(predictions, draft)
    moved = {title: directory / file.relative_to(draft) for title, file in report.images.items()}
    return SplitResult(values, replace(report, images=moved))
