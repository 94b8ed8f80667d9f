"""What in a model, while it trains, makes a sample's gradient depend on its micro-batch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from microstep.diagnostics.accumulation.loops import Cause
from microstep.types.data import Batch


@dataclass(frozen=True)
class BatchDependentModules:
    """Modules by name, that are in training mode when the model is."""

    norms: tuple[str, ...]  #: that normalise by their batch
    running: tuple[str, ...]  #: that keep running statistics of it
    drawing: tuple[str, ...]  #: that draw random numbers

    @property
    def causes(self) -> tuple[Cause, ...]:
        """What the model may be inexact for."""
        found = ((Cause.NORMALISATION, self.norms), (Cause.STATISTICS, self.running), (Cause.DRAWS, self.drawing))
        return tuple(cause for cause, names in found if names)

    def frozen(self, causes: Collection[Cause]) -> tuple[str, ...]:
        """Return the modules that are to behave as in evaluation, where these causes are looked at."""
        kept = {Cause.NORMALISATION, Cause.STATISTICS} & set(causes)
        norms = () if kept else tuple(dict.fromkeys([*self.norms, *self.running]))
        return norms + (() if Cause.DRAWS in causes else self.drawing)


def copy_in_training_mode(model: nn.Module, frozen: Collection[str]) -> nn.Module:
    """Return a copy of a model in training mode, but for some modules."""
    own = copy.deepcopy(model).train()
    for module in map(own.get_submodule, frozen):
        freeze_module(module)
    return own


def freeze_module(module: nn.Module) -> None:
    """Let a module behave as in evaluation, itself alone: a block's layers keep their mode."""
    module.training = False
    if isinstance(module, _BatchNorm) and module.running_mean is None:  # it would normalise by the batch even so
        module.running_mean = torch.zeros(module.num_features, dtype=torch.float64)
        module.running_var = torch.ones(module.num_features, dtype=torch.float64)


def find_batch_dependent_modules(model: nn.Module, batch: Batch) -> BatchDependentModules:
    """Return the modules of a model that are to be suspected; the model stays as it is."""
    own = copy.deepcopy(model).train()
    active = {name: module for name, module in own.named_modules() if module.training}
    running = [name for name, module in active.items() if has_running_statistics(module)]
    norms = [name for name, module in active.items() if isinstance(module, _BatchNorm)]
    return BatchDependentModules(tuple(norms), tuple(running), tuple(find_random_modules(own, batch)))


def has_running_statistics(module: nn.Module) -> bool:
    return isinstance(module, _NormBase) and module.running_mean is not None


@torch.no_grad()
def find_random_modules(model: nn.Module, batch: Batch) -> list[str]:
    """Return the modules that move a random number generator, innermost ones alone, whatever their kind."""
    names = {module: name for name, module in model.named_modules()}
    found, before = [], dict[nn.Module, Tensor]()

    def enter(module: nn.Module, inputs: object) -> None:
        before[module] = get_generator_state(batch.inputs.device)

    def leave(module: nn.Module, inputs: object, outputs: object) -> None:
        own = not any(inner in found for inner in module.modules() if inner is not module)
        if own and not torch.equal(before[module], get_generator_state(batch.inputs.device)):
            found.append(module)

    with module_hooks(model, enter, leave), preserve_generators(batch.inputs.device):
        model(batch.inputs)
    return [names[module] for module in dict.fromkeys(found)]


@contextmanager
def module_hooks(model: nn.Module, enter: Callable[..., None], leave: Callable[..., None]) -> Iterator[None]:
    """Call two functions around every call of a module."""
    handles = [module.register_forward_pre_hook(enter) for module in model.modules()]
    handles += [module.register_forward_hook(leave) for module in model.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def preserve_generators(device: torch.device) -> Iterator[None]:
    """Leave the generators as they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield


def get_generator_state(device: torch.device) -> Tensor:
    """Return the state of the generators that a model on this device draws from."""
    own = torch.default_generator.get_state()
    return torch.cat([own, torch.cuda.get_rng_state(device)]) if device.type == "cuda" else own
