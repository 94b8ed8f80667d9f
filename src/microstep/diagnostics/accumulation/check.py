"""From an experiment to what is found of its windows."""

from __future__ import annotations

from omegaconf import DictConfig
from torch import nn

from microstep.config.hydra_job import get_choices
from microstep.diagnostics.accumulation.gradient import load_checked_windows
from microstep.diagnostics.accumulation.loops import LOOPS
from microstep.diagnostics.accumulation.measure import CauseIsolation, WindowMeasurement, measure_window
from microstep.diagnostics.accumulation.plot import draw_accumulation_plot
from microstep.diagnostics.accumulation.report import AccumulationCheck, accumulation_as_json, accumulation_report_text
from microstep.diagnostics.accumulation.sample_weights import group_by_layer
from microstep.diagnostics.accumulation.verdict import accumulation_verdict_text
from microstep.diagnostics.result import CheckResult
from microstep.diagnostics.variants import (
    FP64,
    change_config,
    check_window_fits,
    get_model_name,
    memory_errors,
    subject_rows,
)
from microstep.training import device as machine
from microstep.training.builders import build_components
from microstep.training.components import Components
from microstep.training.run_info import format_batch_size, option_name
from microstep.utils.terminal import print_and_log


def run_accumulation_check(config: DictConfig) -> CheckResult:
    """Measure the windows of an experiment, whose steps are made by the loop that `rule` names.

    Raises:
        ConfigError: for a window that is larger than the data, and for all that training would refuse.
    """
    parts = build_components(change_config(config, precision=FP64))
    check_window_fits(config, len(parts.dataset.splits["train"]))
    with memory_errors(config):
        found = measure_windows(config, parts)
    looked = AccumulationCheck(
        config.rule,
        get_model_name(config),
        accumulation_summary_rows(config, parts),
        count_layer_parameters(parts.model),
        found,
    )
    passed = all(one.exact for one in found)
    return CheckResult(
        accumulation_report_text(looked),
        accumulation_verdict_text(looked),
        accumulation_as_json(looked),
        {"weights": draw_accumulation_plot(looked)},
        passed=passed,
    )


def measure_windows(config: DictConfig, components: Components) -> list[WindowMeasurement]:
    """Return what is found in each window."""
    windows = load_checked_windows(components.loaders, components.task, components.precision, components.steps)
    print_and_log(f"looking at the {' and the '.join(one.name for one in windows)} of an epoch\n")
    rule = LOOPS[config.rule]
    shared = {"task": components.task, "max_grad_norm": config.max_grad_norm, "seed": config.seed}
    return [measure_window(CauseIsolation(components.model, one, rule(one.shape), **shared)) for one in windows]


def gradient_pass_rows(config: DictConfig) -> dict[str, str]:
    """Return which gradient is looked at, where a step makes several."""
    step = option_name(config, get_choices(), "step")
    return {} if step == "standard" else {"step": f"{step}: the gradient of its first pass"}


def count_layer_parameters(model: nn.Module) -> dict[str, int]:
    """Return how many numbers each layer trains."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return {layer: sum(trained[name].numel() for name in names) for layer, names in group_by_layer(trained).items()}


def accumulation_summary_rows(config: DictConfig, components: Components) -> dict[str, str]:
    """Return the rows that say what is looked at."""
    rule = (LOOPS[config.rule].__doc__ or "").rstrip(".")
    return {
        **subject_rows(config, components.dataset, components.model),
        "batch": format_batch_size(config),
        "loop": f"{config.rule}: {rule[:1].lower()}{rule[1:]}",
        **gradient_pass_rows(config),
        "computed in": (
            f"fp64, {machine.describe_device(components.device)}; the model as seed {config.seed} makes it, untrained"
        ),
    }
