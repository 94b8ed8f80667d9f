"""Gradients, updates and dead units of each layer while a model trains."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn

from microstep.diagnostics.learning.outputs import is_constant
from microstep.types.data import StepResult
from microstep.types.protocols import Precision


@dataclass
class LayerRecord:
    """Gradients and updates of a parameter, window by window."""

    gradients: list[float] = field(default_factory=list)  #: L2 norms
    updates: list[float] = field(default_factory=list)  #: L2 norm of the change ÷ that of the parameter before
    alive: Tensor | None = None  #: which units (the first dimension) ever had a gradient; None for a vector

    @property
    def dead(self) -> float:
        """Share of the units that never had a gradient."""
        return 0.0 if self.alive is None else 1 - self.alive.float().mean().item()

    @property
    def gradient(self) -> float:
        """The first norm that is not 0. In the very first window, all but that of the last layer may be 0."""
        return next((norm for norm in self.gradients if norm), 0.0)

    @property
    def update(self) -> float:
        return median(self.updates) if self.updates else 0.0


class LayerWatch:
    """Records the parameters of a model that ask for a gradient, window by window.

    Args:
        model: its parameters get hooks, until `close`.
        precision: of the training; tells the scale of the gradients.
    """

    def __init__(self, model: nn.Module, precision: Precision) -> None:
        self.precision, self.scale = precision, precision.loss_scale()
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.records = {name: LayerRecord() for name in self.parameters}
        self.norms, self.before = dict[str, Tensor](), self.clone_weights()
        hooks = ((p, partial(self.add_gradient, name)) for name, p in self.parameters.items())
        self.handles = [p.register_post_accumulate_grad_hook(hook) for p, hook in hooks]  # type: ignore[no-untyped-call]

    def clone_weights(self) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in self.parameters.items()}

    def add_gradient(self, name: str, parameter: Tensor) -> None:
        assert parameter.grad is not None
        gradient, record = parameter.grad.detach(), self.records[name]
        self.norms[name] = torch.linalg.vector_norm(gradient.float())
        if gradient.ndim > 1:
            alive = gradient.flatten(1).ne(0).any(1)
            record.alive = alive if record.alive is None else record.alive | alive

    def after_window(self, result: StepResult) -> None:
        for name, norm in self.norms.items():
            self.records[name].gradients.append(norm.item() / self.scale)
        for name, before in self.before.items():
            change = (self.parameters[name].detach() - before).float().norm() / before.float().norm()
            self.records[name].updates.append(change.nan_to_num(0, 0, 0).item())
        self.norms, self.before, self.scale = {}, self.clone_weights(), self.precision.loss_scale()

    def close(self) -> dict[str, LayerRecord]:
        for handle in self.handles:
            handle.remove()
        return self.records


@torch.no_grad()
def depends_on(model: nn.Module, call: Callable[[], Tensor], names: Iterable[str]) -> bool:
    """Return whether the outputs of a call of the model change if some parameters do."""
    before, parameters = call(), [p for name, p in model.named_parameters() if name in names]
    kept = [p.clone() for p in parameters]
    for p in parameters:
        p.add_(p.abs().max() + 1)
    after = call()
    for p, value in zip(parameters, kept, strict=True):
        p.copy_(value)
    return not torch.equal(before, after)


def find_constant_layer(model: nn.Module, call: Callable[[], Tensor]) -> tuple[str, bool] | None:
    """Return the first layer whose outputs in a call of the model are the same for all samples, unlike its inputs.

    It comes with whether the layer is an activation function. None if there is no such layer.
    """
    found = list[tuple[str, bool]]()

    def compare(name: str, module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        if given and not is_constant(given[0]) and is_constant(output):
            found.append((name, type(module).__module__ == nn.ReLU.__module__))

    leaves = ((name, module) for name, module in model.named_modules() if not list(module.children()))
    handles = [module.register_forward_hook(partial(compare, name)) for name, module in leaves]
    call()
    for handle in handles:
        handle.remove()
    return found[0] if found else None


def iter_layers(records: dict[str, LayerRecord]) -> Iterator[tuple[str, LayerRecord]]:
    """Yield the layers with a matrix of weights, by the name of the layer."""
    return ((name.removesuffix(".weight"), record) for name, record in records.items() if record.alive is not None)
