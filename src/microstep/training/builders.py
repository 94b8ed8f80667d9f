"""Builds the components of an experiment from a checked config."""

import inspect
import json
from functools import partial

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from microstep.components.accumulation import Atoms
from microstep.components.dataset import ImageDataset
from microstep.components.dataset.sharing import get_shared
from microstep.components.dataset.workers import worker_count
from microstep.components.model.initial_weights import load_initial_weights
from microstep.components.model.metadata import MeanAndStd
from microstep.config.allowlist import ALLOW_ALL, Allowlist
from microstep.config.experiment import cut_sizes, is_canonical, micro_batch_size, planned_batch_size, planned_processes
from microstep.errors import ConfigError
from microstep.training import device as machine
from microstep.training.allocator import configure_allocator
from microstep.training.components import Components, PartialComponents
from microstep.training.instantiation import build_component
from microstep.training.loaders import Loaders
from microstep.training.normalization import choose_normalization, find_normalization
from microstep.training.optimization import build_optimizer, build_step, build_transform
from microstep.training.profiling.recommendation import recommend_or_load
from microstep.training.provenance import recommendation_key
from microstep.training.single_samples import check_single_samples
from microstep.training.source import find_initial_weights
from microstep.types.protocols import (
    Accumulation,
    Augment,
    Dataset,
    Precision,
    Sampler,
    Step,
    Task,
)
from microstep.utils.progress_bar import ProgressBars
from microstep.utils.randomness import reseed

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
    local_processes: int = 1,
) -> Components:
    """Build the components that training and evaluation share.

    If `new_run`, pretrained weights are loaded and precision=auto may measure; otherwise a checkpoint follows.
    `saved_dtype` and `saved_name` are those of the resumed run's precision; `normalization` is what the run has
    recorded. Cores are divided among the `local_processes` of the run on this machine.
    """
    components = build_partial_components(config, allowlist, device, new_run, normalization, local_processes)
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
    local_processes: int = 1,
) -> PartialComponents:
    """Build the components that don't depend on the precision; load pretrained weights if `new_run`."""
    configure_allocator(config.allocator)
    machine.configure_torch(config.threads, config.deterministic, local_processes)
    selected_device = machine.choose_device(device or config.device)
    workers = config.num_workers if local_processes == 1 else divide_workers(config.num_workers, local_processes)
    dataset = build_dataset(config, selected_device, allowlist, num_workers=workers)
    facts = {**dataset.facts, "device": selected_device}
    task = build_component(config, "task", Task, allowlist, **facts)
    reseed(selected_device, config.seed, INITIALIZATION_KEY)
    facts |= {"num_classes": task.outputs} if hasattr(task, "outputs") else {}
    model = build_component(config, "model", nn.Module, allowlist, **facts, load_weights=new_run)
    check_trainable(model)
    if new_run:
        initial = config.init and load_initial_weights(model, find_initial_weights(config.init), config.init)
        dataset = choose_normalization(config, model, dataset, initial)
    elif isinstance(dataset, ImageDataset) and (found := normalization or find_normalization(model)):
        dataset = dataset.with_normalization(*found, "the run's own")  # 0.1.0 recorded none, and used the model's
    accumulation = build_accumulation(config, allowlist)
    loaders = build_loaders(config, dataset, accumulation, task, selected_device, allowlist)
    if new_run:
        check_single_samples(config, model, loaders)

    def make_step(precision: Precision) -> Step:
        return build_step(config, allowlist, task, build_transform(config, allowlist), precision)

    makers = partial(build_optimizer, config, allowlist), make_step
    return PartialComponents(selected_device, dataset, task, model, accumulation, loaders, config.seed, *makers)


def divide_workers(requested: int | None, processes: int) -> int:
    """Return the processes that read images, of one of several processes of a run on this machine."""
    return worker_count(None) // processes if requested is None else requested


def build_accumulation(config: DictConfig, allowlist: Allowlist) -> Accumulation:
    processes = planned_processes(config)
    offered = {"batch_size": planned_batch_size(config), "processes": processes, "sizes": cut_sizes(config)}
    plan = build_component(config, "accumulation", Accumulation, allowlist, **offered)
    if processes > 1 and "processes" not in inspect.signature(type(plan)).parameters:
        reason = f"{type(plan).__name__} has no argument `processes`, so its windows are those of one process"
        raise ConfigError(f"strategy.processes={processes}", reason, "let it take them, or choose strategy=single")
    return Atoms(plan, config.atom) if is_canonical(config) else plan


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
    size, train = planned_batch_size(config), dataset.splits["train"]
    evaluated = EVALUATION_FACTOR * micro_batch_size(config)
    offered = {"train_targets": train.targets, "train_strata": dataset.facts.get("train_strata", train.targets)}
    sampler = build_component(config, "sampler", Sampler, allowlist, **offered)
    augment = build_component(config, "augment", Augment, allowlist)
    check_mixable(augment, task)
    loaders = Loaders(dataset.splits, sampler, augment, plan, task, evaluated, config.seed, device)
    if size > (samples := loaders.samples):
        raise ConfigError(f"batch_size={size}", f"an epoch has {samples:,} samples", f"choose at most {samples}")
    return loaders


def check_trainable(model: nn.Module) -> None:
    if not any(p.requires_grad for p in model.parameters()):
        raise ConfigError("model", "none of its parameters asks for a gradient", "leave some of them unfrozen")


def check_mixable(augment: Augment, task: Task) -> None:
    if getattr(augment, "mixing_rule", None) and "mix" not in inspect.signature(task.loss_sum).parameters:
        raise ConfigError("augment", f"{type(task).__name__} can't be mixed", "choose one without mixing")
