"""From an experiment to what is found of its windows."""

from __future__ import annotations

from omegaconf import DictConfig
from torch import nn

from microstep.config.hydra_job import get_choices
from microstep.diagnostics.accumulation.gradient import real_windows
from microstep.diagnostics.accumulation.loops import LOOPS
from microstep.diagnostics.accumulation.measure import Laboratory, Measured, measure
from microstep.diagnostics.accumulation.plot import draw
from microstep.diagnostics.accumulation.report import Looked, numbers, page
from microstep.diagnostics.accumulation.sample_weights import layers
from microstep.diagnostics.accumulation.verdict import sentence
from microstep.diagnostics.result import Finding
from microstep.diagnostics.variants import FP64, changed, fitting, model_name, refuse_large_windows, subject
from microstep.training import device as machine
from microstep.training.builders import build_components
from microstep.training.components import Components
from microstep.training.run_info import format_batch_size, option_name
from microstep.utils.terminal import print_and_log


def look(config: DictConfig) -> Finding:
    """Measure the windows of an experiment, whose steps are made by the loop that `rule` names.

    Raises:
        ConfigError: for a window that is larger than the data, and for all that training would refuse.
    """
    parts = build_components(changed(config, precision=FP64))
    refuse_large_windows(config, len(parts.dataset.splits["train"]))
    with fitting(config):
        found = measured(config, parts)
    looked = Looked(config.rule, model_name(config), summary(config, parts), parameters(parts.model), found)
    passed = all(one.exact for one in found)
    return Finding(page(looked), sentence(looked), numbers(looked), {"weights": draw(looked)}, passed=passed)


def measured(config: DictConfig, components: Components) -> list[Measured]:
    """Return what is found in each window."""
    windows = real_windows(components.loaders, components.task, components.precision, components.steps)
    print_and_log(f"looking at the {' and the '.join(one.name for one in windows)} of an epoch\n")
    rule = LOOPS[config.rule]
    shared = {"task": components.task, "max_grad_norm": config.max_grad_norm, "seed": config.seed}
    return [measure(Laboratory(components.model, one, rule(one.shape), **shared)) for one in windows]


def passes(config: DictConfig) -> dict[str, str]:
    """Return which gradient is looked at, where a step makes several."""
    step = option_name(config, get_choices(), "step")
    return {} if step == "standard" else {"step": f"{step}: the gradient of its first pass"}


def parameters(model: nn.Module) -> dict[str, int]:
    """Return how many numbers each layer trains."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return {layer: sum(trained[name].numel() for name in names) for layer, names in layers(trained).items()}


def summary(config: DictConfig, components: Components) -> dict[str, str]:
    """Return the rows that say what is looked at."""
    rule = (LOOPS[config.rule].__doc__ or "").rstrip(".")
    return {
        **subject(config, components.dataset, components.model),
        "batch": format_batch_size(config),
        "loop": f"{config.rule}: {rule[:1].lower()}{rule[1:]}",
        **passes(config),
        "computed in": (
            f"fp64, {machine.describe_device(components.device)}; the model as seed {config.seed} makes it, untrained"
        ),
    }
