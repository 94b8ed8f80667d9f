"""Describes a run: the facts in run.json, the start summary and the warning about inexact layers."""

import logging
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from microstep.components.model.ghost_norm import GhostBatchNorm
from microstep.config.experiment import effective_batch_size, is_canonical, planned_batch_size, planned_processes
from microstep.run.monitor import choose_monitor
from microstep.run.progress import Progress
from microstep.training import device as machine
from microstep.training import provenance
from microstep.training.components import Components
from microstep.training.periods import Periods
from microstep.utils.text import display_path, format_count

log = logging.getLogger("microstep.notice")


def run_facts(
    config: DictConfig, components: Components, choices: Mapping[str, str], identity: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the facts that run.json holds from the start; `choices` maps groups to options."""
    monitor, dataset = choose_monitor(config.monitor, components.task.metrics()), components.dataset
    return {
        "epochs": Periods.of(config, components.steps).count(Progress()),
        "effective_batch_size": effective_batch_size(config),
        **({"micro_batch_size": size} if (size := components.loaders.found_size) else {}),
        **{name: identity[name] for name in ("precision", "files", "versions")},
        "device": machine.describe_device(components.device),
        "threads": torch.get_num_threads(),
        "world_size": identity["processes"],
        "parameters": components.num_parameters,
        "monitor": monitor.name,
        "direction": monitor.direction,
        "data": {"fingerprint": dataset.fingerprint, "samples": {name: len(s) for name, s in dataset.splits.items()}},
        "experiment_hash": identity["experiment"],
        "source_hash": identity["source"],
        "git": provenance.read_git_state(),
        "command": shlex.join(sys.orig_argv),
        **({"parent": {"weights": config.init, "sha256": identity["files"].get("init")}} if config.init else {}),
        "choices": {group: option for group, option in choices.items() if group in config},
    }


def start_summary(
    config: DictConfig, choices: Mapping[str, str], components: Components, run_dir: Path, processes: int
) -> dict[str, str]:
    precision, length = components.precision, "all" if config.steps else format_count(config.epochs, "epoch")
    auto = components.loaders.found_size and f"auto → effective {effective_batch_size(config)}"
    return {
        "data": f"{option_name(config, choices, 'dataset')}: {components.dataset.summary}",
        **unusual_rows(config, choices),
        "model": f"{option_name(config, choices, 'model')}: {components.num_parameters:,} parameters",
        "precision": f"{precision.name} ({precision.reason})",
        "device": machine.describe_device(components.device),
        **format_processes(planned_processes(config), processes),
        **({"compiled": "for training; the first windows take seconds to a minute more"} if config.compile else {}),
        "batch": auto or format_batch_size(config),
        "steps": f"{components.steps:,} an epoch, {Periods.of(config, components.steps).total:,} in {length}",
        **({"validated": f"every {config.validate_every_steps:,} steps"} if config.validate_every_steps else {}),
        **({"monitor": config.monitor} if config.monitor else {}),
        "run directory": display_path(run_dir),
    }


def format_processes(planned: int, processes: int) -> dict[str, str]:
    if planned == processes == 1:
        return {}
    return {"processes": f"{processes}" + (f" (planned for {planned})" if planned != processes else "")}


def unusual_rows(config: DictConfig, choices: Mapping[str, str]) -> dict[str, str]:
    """Return the groups that don't have their usual option or class."""
    groups = ("sampler", "augment", "step", "gradient", "average", "stop")
    found = {group: option_name(config, choices, group) for group in groups}
    usual = ("shuffle", "none", "standard", "standardstep", "identity", "noaverage", "never")
    return {group: choice for group, choice in found.items() if choice.lower() not in usual}


def option_name(config: DictConfig, choices: Mapping[str, str], group: str) -> str:
    """Return the option chosen for a group, or the name of its `_target_` if the config was not composed."""
    return choices.get(group) or str(config[group]["_target_"]).rpartition(".")[2]


def format_batch_size(config: DictConfig) -> str:
    processes = planned_processes(config)
    planned = f" × {processes} processes" if processes > 1 else ""
    row = f"{planned_batch_size(config)} × accum {config.accum}{planned} → effective {effective_batch_size(config)}"
    if is_canonical(config):
        return f"{row}, computed in atoms of {config.atom} (reduction=canonical)"
    if config.effective_batch_size is not None:
        return f"{row} (effective_batch_size is given: accum only cuts it)"
    return f"{row} (accum multiplies batch_size)" if config.accum > 1 else row


def warn_inexact_accumulation(model: nn.Module, micro_batches: int | None) -> None:
    said = find_inexact_layers(model)
    if micro_batches != 1 and said:
        cut = f"{micro_batches} micro-batches a step" if micro_batches else "accumulation=auto"
        remedy = "a larger batch_size with a smaller accum narrows it, check=accumulation measures it"
        remedy = remedy if micro_batches else "memory changes the result, unless model.norm=ghost or group is typed"
        log.warning("%s: %s; %s", cut, "; ".join(said), remedy)


def find_inexact_layers(model: nn.Module) -> list[str]:
    """Return why micro-batches differ from one large batch for this model: a sentence for each kind of layer."""
    active = find_training_modules(model)
    norm = "BatchNorm normalises by each micro-batch, not by the window (GroupNorm is exact: model.norm=group)"
    said = [norm] if any(isinstance(m, _BatchNorm) and not isinstance(m, GhostBatchNorm) for m in active) else []
    if any(isinstance(m, _DropoutNd) and m.p > 0 for m in active):
        said.append("dropout's masks are drawn a micro-batch at a time: the same in law, not in value (p=0 is exact)")
    return said


def find_training_modules(model: nn.Module) -> list[nn.Module]:
    """Return the modules in training mode after `model.train()`, without the frozen ones; restore the modes."""
    before = [(module, module.training) for module in model.modules()]
    model.train()
    active = [module for module, _ in before if module.training]
    for module, mode in before:
        module.training = mode
    return active
