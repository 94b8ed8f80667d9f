"""Builds the components that change the weights of a run, from a checked config."""

import inspect
from functools import partial
from typing import Any

from omegaconf import DictConfig
from torch import nn
from torch.optim import Optimizer

from microstep.components.gradient import Identity
from microstep.config.allowlist import ALLOW_ALL, Allowlist
from microstep.config.param_groups import group_parameters, read_param_groups
from microstep.errors import ConfigError
from microstep.run.monitor import choose_monitor
from microstep.training.compiler import compile_model
from microstep.training.components import Components, Optimization
from microstep.training.evaluation_loop import recompute_statistics
from microstep.training.instantiation import build_component
from microstep.training.periods import Periods
from microstep.types.protocols import Averaging, Precision, Scheduler, Step, Stopping, Task, Transform


def build_optimization(
    config: DictConfig, components: Components, allowlist: Allowlist = ALLOW_ALL, steps_per_epoch: int | None = None
) -> Optimization:
    """Build the components that change the weights. `steps_per_epoch` is given if an epoch is cut short."""
    optimizer, steps = build_optimizer(config, allowlist, components.model), steps_per_epoch or components.steps
    monitor = choose_monitor(config.monitor, components.task.metrics())
    length = {"total_steps": Periods.of(config, steps).total, "steps_per_epoch": steps}
    offered = length | {"optimizer": optimizer, "direction": monitor.direction}
    scheduler = build_component(config, "scheduler", Scheduler, allowlist, **offered)
    transform = build_transform(config, allowlist)
    step = build_step(config, allowlist, components.task, transform, components.precision)
    available = length | {"recompute_statistics": partial(recompute_statistics, components)}
    average = build_component(config, "average", Averaging, allowlist, **available)
    stop = build_component(config, "stop", Stopping, allowlist)
    compiled = compile_model(components.model) if config.compile and config.check is None else None
    return Optimization(optimizer, scheduler, step, transform, average, stop, monitor, compiled)


def build_optimizer(config: DictConfig, allowlist: Allowlist, model: nn.Module) -> Optimizer:
    groups = read_param_groups(config)
    allowlist(groups, "param_groups")  # Hydra builds nodes in arguments, too
    params = group_parameters(dict(model.named_parameters()), groups)
    return build_component(config, "optimizer", Optimizer, allowlist, params=params)


def build_transform(config: DictConfig, allowlist: Allowlist) -> Transform | None:
    transform = build_component(config, "gradient", Transform, allowlist)
    return None if isinstance(transform, Identity) else transform


def build_step(
    config: DictConfig, allowlist: Allowlist, task: Task, transform: Transform | None, precision: Precision
) -> Step:
    metrics = getattr(task, "train_metrics", task.metrics)()
    shared: dict[str, Any] = {"precision": precision, "task": task, "metrics": metrics, "transform": transform}
    step = build_component(config, "step", Step, allowlist, **shared, max_grad_norm=config.max_grad_norm)
    if transform is not None and "transform" not in inspect.signature(type(step)).parameters:
        reason = f"{type(step).__name__} has no argument `transform`, so it can't transform the gradient"
        raise ConfigError("gradient", reason, "pass it on to precision.update, or type gradient=none")
    return step
