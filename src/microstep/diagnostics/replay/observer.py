"""Computes the gradient of a window with a copy of the model, sample by sample and operation by operation."""

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from copy import copy, deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.nn.utils import get_total_norm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from microstep.components.step.standard import accumulate_gradient
from microstep.components.strategy import use_strategy
from microstep.training.components import Components
from microstep.types.data import Batch, LoadedWindow, Mix

Origin = tuple[int, str, tuple[int, ...]]  #: number, operation with layer and inputs, rows of its samples if known


@dataclass
class Sample:
    """A sample of the window, at the weights before the step."""

    name: str  #: index in the official split, and file
    label: str
    peak: float  #: largest absolute input
    image: Tensor | None  #: C × H × W in 0…1, as the model sees it
    loss: float = math.nan  #: weighted
    gradient: float = math.nan  #: norm of the gradient of the loss by the model's outputs


class WindowObserver(TorchDispatchMode):
    """Takes the place of the task while a copy of the model computes the gradient of a window.

    It follows values that are not finite from the operation that they come from. `scaled=False`: without loss scale.
    """

    def __init__(self, components: Components, epoch: int, window: LoadedWindow, scaled: bool = True) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.components, self.epoch, self.samples, self.first = components, epoch, list[Sample](), 0
        self.origins, self.origin, self.count = dict[int, Origin](), cast(Origin | None, None), 0  #: by address
        self.layers, self.entries = ["the loss"], [(0, "the loss")]  #: that run; autograd's number at each change
        model, precision = deepcopy(components.model).train(), copy(components.precision)  # it notes infinite losses
        if not scaled:
            cast(Any, precision).scaler = GradScaler(enabled=False)
        for name, module in model.named_modules():
            module.register_forward_pre_hook(partial(self.change_layer, f"{name} ({type(module).__name__})"))
            module.register_forward_hook(partial(self.change_layer, None))
        self.weights = {p.shape for p in model.parameters()}
        with use_strategy(components.loaders.strategy), self:
            arguments: Any = self.watch(window.batches), window.weight, precision, self, None
            self.loss, self.scale = accumulate_gradient(model, *arguments).item(), precision.loss_scale()
        found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        bad = find_floats([gradient for gradient in found.values() if not gradient.isfinite().all()])
        self.origin = self.origin or self.find_origin(bad)
        self.gradients = {name: gradient / self.scale for name, gradient in found.items()}
        self.grad_norm = get_total_norm(list(self.gradients.values())).item()
        self.is_finite = math.isfinite(self.loss) and math.isfinite(self.grad_norm)

    def watch(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        loaders, names = self.components.loaders, dict(enumerate(self.components.dataset.facts.get("class_names", ())))
        order, split = loaders.draw_order(self.epoch), loaders.splits["train"]
        for batch in batches:
            self.first, images = len(self.samples), split.to_images(batch.inputs)
            targets = [batch.targets, *(mix.targets for mix in batch.mix_arguments)]
            peaks, rows = batch.inputs.flatten(1).abs().amax(1).tolist(), order[batch.positions.cpu()].tolist()
            for n, (index, row) in enumerate(zip(batch.indices.tolist(), rows, strict=True)):
                name = f"#{index} {files[row]}" if (files := getattr(split, "files", None)) else f"#{index}"
                label = " / ".join(format_target(each[n], names) for each in targets)
                self.samples.append(Sample(name, label, peaks[n], None if images is None else images[n]))
            yield batch

    def loss_sum(self, outputs: Tensor, targets: Tensor, *mix: Mix) -> Tensor:
        """Return the loss of the task, and note that of each sample."""
        task, alone = self.components.task, outputs.detach().requires_grad_()
        for row, sample in enumerate(self.samples[self.first :]):
            one = slice(row, row + 1)
            loss = task.loss_sum(alone[one], targets[one], *(Mix(m.targets[one], m.share[one]) for m in mix))
            (gradient,) = torch.autograd.grad(loss + 0 * alone.sum(), alone)  # it may depend on none
            sample.loss, sample.gradient = loss.item(), gradient.float().norm().item()
        loss = task.loss_sum(outputs, targets, *mix)
        self.origin = self.origin or self.find_origin(find_floats([] if loss.isfinite() else [loss]))
        return loss

    def change_layer(self, entered: str | None, *_: Any) -> None:
        self.layers = self.layers[:-1] if entered is None else [*self.layers, entered]
        self.entries.append((torch.autograd._get_sequence_nr(), self.layers[-1]))  # type: ignore[attr-defined]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result, name = func(*args, **(kwargs or {})), func._schema.name.removeprefix("aten::").strip("_")
        inputs, outputs = find_floats((args, kwargs)), find_floats(result)
        known, bad = self.find_origin(inputs), [place for place, x in outputs.items() if not x.isfinite().all()]
        fresh = outputs.keys() - (() if func._schema.is_mutable else inputs.keys())
        self.origins = {place: origin for place, origin in self.origins.items() if place not in fresh}
        if bad and not name.startswith(("empty", "new_empty")):  # which return any memory
            self.origins |= dict.fromkeys(bad, known or self.make_origin(name, inputs.values(), outputs[bad[0]]))
        return result

    def find_origin(self, places: Iterable[int]) -> Origin | None:
        return min((self.origins[place] for place in places if place in self.origins), default=None)

    def make_origin(self, name: str, inputs: Iterable[Tensor], output: Tensor) -> Origin:
        layer, self.count = self.layers[-1], self.count + 1
        if (node := torch._C._current_autograd_node()) is not None:
            name = f"{name}, in the gradient of {node.name().partition('Backward')[0]},"
            layer = self.entries[bisect_right(self.entries, node._sequence_nr(), key=lambda entry: entry[0]) - 1][1]
        ranges = " and ".join(f"{x.min().item():.4g} to {x.max().item():.4g}" for x in inputs if x.numel())
        kind = "NaN" if output.isnan().any() else f"infinity in {str(output.dtype).removeprefix('torch.')}"
        rows = range(self.first, len(self.samples))  # of the micro-batch
        by_sample = output.dim() and len(output) == len(rows) and output.shape not in self.weights
        bad = (~output.isfinite()).reshape(len(output), -1).any(1).nonzero().flatten().tolist() if by_sample else []
        return self.count, f"{name} in {layer} returns {kind} for inputs of {ranges}", tuple(rows[n] for n in bad)


def find_floats(values: Any) -> dict[int, Tensor]:
    found = [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    return {tensor.untyped_storage().data_ptr(): tensor for tensor in found}


def format_target(target: Tensor, names: dict[int, str]) -> str:
    is_class = target.dim() == 0 and not target.is_floating_point()
    return names.get(int(target) if is_class else -1, f"{target.numpy(force=True)}")
