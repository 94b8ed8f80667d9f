"""From a checked config to objects: the only place that builds a `_target_`, behind one gate."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from functools import partial
from typing import Any, TypeGuard, TypeVar

import torch
from hydra.errors import HydraException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.optim import Optimizer

from microstep.components.dataset import ImageDataset
from microstep.components.dataset.sharing import get_shared
from microstep.config.allowlist import ALLOW_ALL, Allowlist
from microstep.config.experiment import micro_batch_size
from microstep.config.targets import current, renamed
from microstep.errors import ConfigError, MicrostepError
from microstep.training import device as machine
from microstep.training.components import Components, PartialComponents
from microstep.training.loaders import Loaders
from microstep.training.profiling.recommendation import recommend_or_load
from microstep.training.provenance import recommendation_key
from microstep.types.protocols import Accumulation, Augment, Dataset, Precision, Sampler, Scheduler, Step, Task
from microstep.utils.progress_bar import ProgressBars
from microstep.utils.randomness import reseed

T = TypeVar("T")
CONSTRUCTOR_ERRORS = (
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    OSError,
    HydraException,
)  #: what wrong arguments raise
INITIALIZATION_KEY = 0  #: the epoch in the key of a model's first weights; training's epochs count from 1
EVALUATION_FACTOR = 4  #: evaluation keeps no activations for a backward pass, so more samples fit at once


def build_components(
    config: DictConfig,
    allowlist: Allowlist = ALLOW_ALL,
    device: str | None = None,
    new_run: bool = True,
    saved_dtype: str | None = None,
    saved_name: str | None = None,
) -> Components:
    """Return what training and evaluation share.

    Args:
        new_run: whether the run is a new one: a model that starts from pretrained weights loads them, for no
        checkpoint's
            will replace them, and a precision may measure what is best.
        saved_dtype: what a precision that chooses by the device is to compute in, whatever the device.
        saved_name: what the run has computed in, for a precision that would choose by a measurement.
    """
    components = build_partial_components(config, allowlist, device, new_run)
    measured = (
        partial(recommend_or_load, components, recommendation_key(config, components.device)) if new_run else None
    )
    saved = {"saved_dtype": saved_dtype, "saved_name": saved_name}
    precision = build_component(
        config, "precision", Precision, allowlist, device=components.device, **saved, measured=measured
    )
    model = precision.prepare(components.model)
    return Components(
        components.device,
        precision,
        components.dataset,
        components.task,
        model,
        components.accumulation,
        components.loaders,
    )


def build_partial_components(
    config: DictConfig, allowlist: Allowlist = ALLOW_ALL, device: str | None = None, new_run: bool = True
) -> PartialComponents:
    """Return all of an experiment that doesn't depend on its precision, and how the rest is made.

    Args:
        new_run: whether a model that starts from pretrained weights loads them.
    """
    machine.configure_torch(config.threads, config.deterministic)
    selected_device = machine.choose_device(device or config.device)
    dataset = build_dataset(config, selected_device, allowlist, num_workers=config.num_workers)
    facts = {**dataset.facts, "device": selected_device}
    task = build_component(config, "task", Task, allowlist, **facts)
    reseed(selected_device, config.seed, INITIALIZATION_KEY)
    model = build_component(config, "model", nn.Module, allowlist, **facts, load_weights=new_run)
    check_trainable(model)
    dataset = match_pretrained_normalization(model, dataset)
    accumulation = build_component(config, "accumulation", Accumulation, allowlist, batch_size=micro_batch_size(config))
    loaders = build_loaders(config, dataset, accumulation, task, selected_device, allowlist)
    makers = partial(build_optimizer, config, allowlist), partial(build_step, config, allowlist, task)
    return PartialComponents(selected_device, dataset, task, model, accumulation, loaders, config.seed, *makers)


def build_optimizer(config: DictConfig, allowlist: Allowlist, model: nn.Module) -> Optimizer:
    """Return the optimizer of a model's parameters."""
    return build_component(config, "optimizer", Optimizer, allowlist, params=list(model.parameters()))


def build_step(config: DictConfig, allowlist: Allowlist, task: Task, precision: Precision) -> Step:
    """Return the step in a precision; its metrics are its own."""
    shared: dict[str, Any] = {"precision": precision, "task": task, "metrics": task.metrics()}
    return build_component(config, "step", Step, allowlist, **shared, max_grad_norm=config.max_grad_norm)


def build_dataset(
    config: DictConfig, device: torch.device, allowlist: Allowlist = ALLOW_ALL, num_workers: int | None = None
) -> Dataset:
    """Return the data set alone; jobs of a sweep that run in one process share it."""
    bar = ProgressBars(config.progress).images
    described = json.dumps(OmegaConf.to_container(config.dataset, resolve=True), default=str)
    return get_shared(
        (described, str(device), num_workers),
        lambda: build_component(config, "dataset", Dataset, allowlist, device=device, num_workers=num_workers, bar=bar),
    )


def build_loaders(
    config: DictConfig,
    dataset: Dataset,
    accumulation: Accumulation,
    task: Task,
    device: torch.device,
    allowlist: Allowlist,
) -> Loaders:
    """Return what brings the batches."""
    size, train = micro_batch_size(config), dataset.splits["train"]
    check_batch_size_fits(size, len(train))
    sampler = build_component(config, "sampler", Sampler, allowlist, train_targets=train.targets)
    augment = build_component(config, "augment", Augment, allowlist)
    check_mixable(augment, task)
    batch_size = EVALUATION_FACTOR * size
    return Loaders(dataset.splits, sampler, augment, accumulation, task, batch_size, config.seed, device)


def match_pretrained_normalization(model: nn.Module, dataset: Dataset) -> Dataset:
    """Return the data set normalised as the model's pretrained weights expect it, where it has such."""
    normalisation = getattr(model, "normalization", None)
    if normalisation is None or not isinstance(dataset, ImageDataset):
        return dataset
    return dataset.normalised_by(*normalisation)


def check_trainable(model: nn.Module) -> None:
    """Refuse a model of which nothing would be trained."""
    if not any(p.requires_grad for p in model.parameters()):
        raise ConfigError("model", "none of its parameters asks for a gradient", "leave some of them unfrozen")


def check_batch_size_fits(batch_size: int, samples: int) -> None:
    """Refuse a micro-batch that no window can fill."""
    if batch_size > samples:
        reason = f"the training split has {samples:,} samples"
        raise ConfigError(f"batch_size={batch_size}", reason, f"choose at most {samples}")


def check_mixable(augment: Augment, task: Task) -> None:
    """Refuse to mix samples of a task that doesn't say what that means for its loss."""
    if getattr(augment, "mixing_rule", None) and "mix" not in inspect.signature(task.loss_sum).parameters:
        raise ConfigError("augment", f"{type(task).__name__} can't be mixed", "choose one without mixing")


def build_optimization(
    config: DictConfig, components: Components, allowlist: Allowlist = ALLOW_ALL
) -> tuple[Optimizer, Scheduler, Step]:
    """Return what moves the weights of these parts."""
    optimizer, steps = build_optimizer(config, allowlist, components.model), components.steps * config.epochs
    scheduler = build_component(config, "scheduler", Scheduler, allowlist, optimizer=optimizer, total_steps=steps)
    return optimizer, scheduler, build_step(config, allowlist, components.task, components.precision)


def build_component(
    config: DictConfig, group: str, protocol: type[T], allowlist: Allowlist = ALLOW_ALL, **available: Any
) -> T:
    """Build the slot's `_target_` from its yaml and from what it asks for, by name, of what is offered.

    Raises:
        ConfigError: where the gate refuses it, its constructor does, or it makes something else than a `protocol`.
    """
    node = OmegaConf.to_container(config[group], resolve=True)
    allowlist(node, group)
    target = node.get("_target_") if isinstance(node, dict) else None
    try:
        component = instantiate(
            renamed(node, current), **select_arguments(current(str(target)), available), _convert_="all"
        )
    except (HydraException, ImportError) as error:
        raise constructor_error(group, str(target), error) from error
    if not conforms_to(component, protocol):
        raise ConfigError(f"{group}._target_={target}", f"it makes no {protocol.__name__}", "name a target that does")
    return component


def conforms_to(component: Any, protocol: type[T]) -> TypeGuard[T]:
    """Say whether it is of a kind; before Python 3.12 a protocol's check evaluates properties: reads pictures."""
    return (protocol is Dataset and isinstance(component, ImageDataset)) or isinstance(component, protocol)


def select_arguments(target: str, available: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the offered values that the target's signature names."""
    names = inspect.signature(get_object(target)).parameters
    return {name: value for name, value in available.items() if name in names}


def constructor_error(group: str, target: str, error: Exception) -> MicrostepError:
    """Return why a constructor refused; an error of ours passes as it is."""
    cause = error.__cause__ or error
    if isinstance(cause, MicrostepError):
        return cause
    if isinstance(cause, ImportError):
        reason = f"it can't be imported: {cause}"
        return ConfigError(f"{group}._target_={target}", reason, "mend the name, or put its file on PYTHONPATH")
    if not isinstance(cause, CONSTRUCTOR_ERRORS):
        raise cause
    reason = " ".join(str(cause).split())
    key = re.match(r"(\w+=\S+?):? ", reason)  # a constructor of ours begins with what it refuses
    subject = f"{group}.{key[1]}" if key else f"{group} ({target})"
    return ConfigError(subject, reason[key.end() :] if key else reason, f"see the keys of conf/{group}/")
