"""Finds the modules that make a sample's gradient depend on its micro-batch."""

import copy
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from microstep.components.model.ghost_norm import GhostBatchNorm
from microstep.diagnostics.accumulation.loops import MODEL_CAUSES, Cause
from microstep.types.data import Batch


@dataclass(frozen=True)
class BatchDependentModules:
    """Names of modules that depend on the batch while the model is in training mode."""

    norms: tuple[str, ...]  #: normalize by their batch
    running_statistics: tuple[str, ...]  #: keep running statistics
    random: tuple[str, ...]  #: draw random numbers

    @property
    def causes(self) -> tuple[Cause, ...]:
        pairs = zip(MODEL_CAUSES, (self.norms, self.running_statistics, self.random), strict=True)
        return tuple(cause for cause, names in pairs if names)

    def select_frozen(self, causes: Collection[Cause]) -> tuple[str, ...]:
        """Return the modules to freeze so that only `causes` remain."""
        active = {Cause.NORMALISATION, Cause.STATISTICS} & set(causes)
        norms = () if active else tuple(dict.fromkeys([*self.norms, *self.running_statistics]))
        return norms + (() if Cause.DRAWS in causes else self.random)


def copy_in_training_mode(model: nn.Module, frozen: Collection[str]) -> nn.Module:
    trained = copy.deepcopy(model).train()
    for module in map(trained.get_submodule, frozen):
        freeze_module(module)
    return trained


def freeze_module(module: nn.Module) -> None:
    """Let a module behave as in evaluation. Its submodules keep their mode."""
    module.training = False
    if isinstance(module, _BatchNorm) and module.running_mean is None:  # normalizes by the batch in evaluation, too
        module.running_mean = torch.zeros(module.num_features, dtype=torch.float64)
        module.running_var = torch.ones(module.num_features, dtype=torch.float64)


def find_batch_dependent_modules(model: nn.Module, batch: Batch) -> BatchDependentModules:
    trained = copy.deepcopy(model).train()
    active = {n: m for n, m in trained.named_modules() if m.training and not isinstance(m, GhostBatchNorm)}
    norms = [name for name, module in active.items() if isinstance(module, _BatchNorm)]
    running = [name for name, m in active.items() if isinstance(m, _NormBase) and m.running_mean is not None]
    return BatchDependentModules(tuple(norms), tuple(running), tuple(find_random_modules(trained, batch)))


@torch.no_grad()
def find_random_modules(model: nn.Module, batch: Batch) -> list[str]:
    """Return the innermost modules, of any type, that advance a random number generator."""
    names = {module: name for name, module in model.named_modules()}
    found, before = dict[nn.Module, None](), dict[nn.Module, Tensor]()

    def enter(module: nn.Module, inputs: object) -> None:
        before[module] = get_generator_state(batch.inputs.device)

    def leave(module: nn.Module, inputs: object, outputs: object) -> None:
        innermost = not any(inner in found for inner in module.modules() if inner is not module)
        if innermost and not torch.equal(before[module], get_generator_state(batch.inputs.device)):
            found[module] = None

    devices = [batch.inputs.device] if batch.inputs.device.type == "cuda" else []
    with module_hooks(model, enter, leave), torch.random.fork_rng(devices):
        model(batch.inputs)
    return [names[module] for module in found]


@contextmanager
def module_hooks(model: nn.Module, enter: Callable[..., None], leave: Callable[..., None]) -> Iterator[None]:
    """Call `enter(module, inputs)` before and `leave(module, inputs, outputs)` after each call of a module."""
    handles = [module.register_forward_pre_hook(enter) for module in model.modules()]
    handles += [module.register_forward_hook(leave) for module in model.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def get_generator_state(device: torch.device) -> Tensor:
    state = torch.default_generator.get_state()
    return torch.cat([state, torch.cuda.get_rng_state(device)]) if device.type == "cuda" else state
