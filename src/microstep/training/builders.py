"""Builds components from a checked config. Every `_target_` is built here, after the allowlist has been checked."""

import inspect
import json
import re
from functools import partial
from typing import Any, TypeVar

import torch
from hydra.errors import HydraException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.optim import Optimizer

from microstep.components.dataset import ImageDataset
from microstep.components.dataset.sharing import get_shared
from microstep.components.model.metadata import MeanAndStd
from microstep.config.allowlist import ALLOW_ALL, Allowlist
from microstep.config.experiment import DATA_PATH_KEYS, micro_batch_size
from microstep.config.targets import current, renamed
from microstep.errors import ConfigError, MicrostepError
from microstep.training import device as machine
from microstep.training.allocator import configure_allocator
from microstep.training.components import Components, PartialComponents
from microstep.training.loaders import Loaders
from microstep.training.normalization import choose_normalization, find_normalization
from microstep.training.profiling.recommendation import recommend_or_load
from microstep.training.provenance import recommendation_key
from microstep.training.single_samples import check_single_samples
from microstep.types.protocols import Accumulation, Augment, Dataset, Precision, Sampler, Scheduler, Step, Task
from microstep.utils.files import expand_home
from microstep.utils.progress_bar import ProgressBars
from microstep.utils.randomness import reseed

T = TypeVar("T")
#: Raised by constructors if arguments are wrong.
CONSTRUCTOR_ERRORS = (TypeError, ValueError, LookupError, AttributeError, OSError, HydraException)
INITIALIZATION_KEY = 0  #: epoch number that seeds the initial weights; epochs of training count from 1
EVALUATION_FACTOR = 4  #: evaluation batches are larger: no activations are kept for a backward pass


def build_components(
    config: DictConfig,
    allowlist: Allowlist = ALLOW_ALL,
    device: str | None = None,
    new_run: bool = True,
    saved_dtype: str | None = None,
    saved_name: str | None = None,
    normalization: MeanAndStd | None = None,
) -> Components:
    """Build the components that training and evaluation share.

    If `new_run`, pretrained weights are loaded and precision=auto may measure; otherwise a checkpoint follows.
    `saved_dtype` and `saved_name` are those of the resumed run's precision; `normalization` is what the run has
    recorded.
    """
    components = build_partial_components(config, allowlist, device, new_run, normalization)
    selected_device, dataset, task = components.device, components.dataset, components.task

    def measure() -> tuple[str, str]:
        return recommend_or_load(components, recommendation_key(config, selected_device, dataset.fingerprint))

    measured = measure if new_run else None
    available = {"device": selected_device, "saved_dtype": saved_dtype, "saved_name": saved_name, "measured": measured}
    precision = build_component(config, "precision", Precision, allowlist, **available)
    model = precision.prepare(components.model)
    return Components(selected_device, precision, dataset, task, model, components.accumulation, components.loaders)


def build_partial_components(
    config: DictConfig,
    allowlist: Allowlist = ALLOW_ALL,
    device: str | None = None,
    new_run: bool = True,
    normalization: MeanAndStd | None = None,
) -> PartialComponents:
    """Build the components that don't depend on the precision; load pretrained weights if `new_run`."""
    configure_allocator(config.allocator)
    machine.configure_torch(config.threads, config.deterministic)
    selected_device = machine.choose_device(device or config.device)
    dataset = build_dataset(config, selected_device, allowlist, num_workers=config.num_workers)
    facts = {**dataset.facts, "device": selected_device}
    task = build_component(config, "task", Task, allowlist, **facts)
    reseed(selected_device, config.seed, INITIALIZATION_KEY)
    facts |= {"num_classes": task.outputs} if hasattr(task, "outputs") else {}
    model = build_component(config, "model", nn.Module, allowlist, **facts, load_weights=new_run)
    check_trainable(model)
    if new_run:
        dataset = choose_normalization(config, model, dataset)
    elif isinstance(dataset, ImageDataset) and (found := normalization or find_normalization(model)):
        dataset = dataset.with_normalization(*found, "the run's own")  # 0.1.0 recorded none, and used the model's
    accumulation = build_component(config, "accumulation", Accumulation, allowlist, batch_size=micro_batch_size(config))
    loaders = build_loaders(config, dataset, accumulation, task, selected_device, allowlist)
    if new_run:
        check_single_samples(config, model, loaders)
    makers = partial(build_optimizer, config, allowlist), partial(build_step, config, allowlist, task)
    return PartialComponents(selected_device, dataset, task, model, accumulation, loaders, config.seed, *makers)


def build_optimizer(config: DictConfig, allowlist: Allowlist, model: nn.Module) -> Optimizer:
    return build_component(config, "optimizer", Optimizer, allowlist, params=list(model.parameters()))


def build_step(config: DictConfig, allowlist: Allowlist, task: Task, precision: Precision) -> Step:
    shared: dict[str, Any] = {"precision": precision, "task": task, "metrics": task.metrics()}
    return build_component(config, "step", Step, allowlist, **shared, max_grad_norm=config.max_grad_norm)


def build_dataset(
    config: DictConfig, device: torch.device, allowlist: Allowlist = ALLOW_ALL, num_workers: int | None = None
) -> Dataset:
    """Build the data set; jobs of a sweep that run in one process share it."""
    available = {"device": device, "num_workers": num_workers, "bar": ProgressBars(config.progress).images}
    key = json.dumps(OmegaConf.to_container(config.dataset, resolve=True), default=str), str(device), num_workers
    return get_shared(key, lambda: build_component(config, "dataset", Dataset, allowlist, **available))


def build_loaders(
    config: DictConfig, dataset: Dataset, plan: Accumulation, task: Task, device: torch.device, allowlist: Allowlist
) -> Loaders:
    size, train = micro_batch_size(config), dataset.splits["train"]
    offered = {"train_targets": train.targets, "train_strata": dataset.facts.get("train_strata", train.targets)}
    sampler = build_component(config, "sampler", Sampler, allowlist, **offered)
    augment = build_component(config, "augment", Augment, allowlist)
    check_mixable(augment, task)
    loaders = Loaders(dataset.splits, sampler, augment, plan, task, EVALUATION_FACTOR * size, config.seed, device)
    if size > (samples := loaders.samples):
        raise ConfigError(f"batch_size={size}", f"an epoch has {samples:,} samples", f"choose at most {samples}")
    return loaders


def check_trainable(model: nn.Module) -> None:
    if not any(p.requires_grad for p in model.parameters()):
        raise ConfigError("model", "none of its parameters asks for a gradient", "leave some of them unfrozen")


def check_mixable(augment: Augment, task: Task) -> None:
    if getattr(augment, "mixing_rule", None) and "mix" not in inspect.signature(task.loss_sum).parameters:
        raise ConfigError("augment", f"{type(task).__name__} can't be mixed", "choose one without mixing")


def build_optimization(
    config: DictConfig, components: Components, allowlist: Allowlist = ALLOW_ALL
) -> tuple[Optimizer, Scheduler, Step]:
    optimizer, steps = build_optimizer(config, allowlist, components.model), components.steps * config.epochs
    scheduler = build_component(config, "scheduler", Scheduler, allowlist, optimizer=optimizer, total_steps=steps)
    return optimizer, scheduler, build_step(config, allowlist, components.task, components.precision)


def build_component(
    config: DictConfig, group: str, protocol: type[T], allowlist: Allowlist = ALLOW_ALL, **available: Any
) -> T:
    """Build a group's `_target_` from its config and from those `available` values that its signature names.

    Raises:
        ConfigError: if the allowlist or the constructor refuses it, or the result doesn't conform to `protocol`.
    """
    node = OmegaConf.to_container(config[group], resolve=True)
    allowlist(node, group)
    target = node.get("_target_") if isinstance(node, dict) else None
    try:
        names = inspect.signature(get_object(current(str(target)))).parameters
        arguments = {name: value for name, value in available.items() if name in names}
        component: T = instantiate(expand_paths(renamed(node, current), group), **arguments, _convert_="all")
    except (HydraException, ImportError) as error:
        raise constructor_error(group, str(target), error) from error
    is_images = protocol is Dataset and isinstance(component, ImageDataset)  # before 3.12 isinstance would read them
    if not is_images and not isinstance(component, protocol):
        raise ConfigError(f"{group}._target_={target}", f"it makes no {protocol.__name__}", "name a target that does")
    return component


def expand_paths(node: dict[str, Any], group: str) -> dict[str, Any]:
    paths = {key: value for key, value in node.items() if f"{group}.{key}" in DATA_PATH_KEYS and isinstance(value, str)}
    return node | {key: expand_home(value) for key, value in paths.items()}


def constructor_error(group: str, target: str, error: Exception) -> MicrostepError:
    """Return the error of a constructor as a ConfigError; a MicrostepError is returned unchanged."""
    cause = error.__cause__ or error
    if isinstance(cause, MicrostepError):
        return cause
    if isinstance(cause, ImportError):
        reason = f"it can't be imported: {cause}"
        return ConfigError(f"{group}._target_={target}", reason, "correct the name, or put its file on PYTHONPATH")
    if not isinstance(cause, CONSTRUCTOR_ERRORS):
        raise cause
    reason = " ".join(str(cause).split())
    key = re.match(r"(\w+=\S+?):? ", reason)  # our constructors begin with the refused key
    subject = f"{group}.{key[1]}" if key else f"{group} ({target})"
    return ConfigError(subject, reason[key.end() :] if key else reason, f"see the keys of conf/{group}/")
