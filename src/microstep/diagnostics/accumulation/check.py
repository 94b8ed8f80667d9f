"""Runs check=accumulation."""

from omegaconf import DictConfig
from torch import nn

from microstep.config.allowlist import ALLOW_ALL
from microstep.config.hydra_job import get_choices
from microstep.diagnostics import variants
from microstep.diagnostics.accumulation.gradient import load_checked_windows
from microstep.diagnostics.accumulation.loops import LOOPS
from microstep.diagnostics.accumulation.measure import CauseIsolation, WindowMeasurement, measure_window
from microstep.diagnostics.accumulation.plot import draw_accumulation_plot
from microstep.diagnostics.accumulation.report import AccumulationCheck, accumulation_as_json, accumulation_report_text
from microstep.diagnostics.accumulation.sample_weights import group_by_layer
from microstep.diagnostics.accumulation.verdict import accumulation_verdict_text
from microstep.diagnostics.result import CheckResult
from microstep.training import device as machine
from microstep.training.builders import build_components
from microstep.training.components import Components
from microstep.training.optimization import build_transform
from microstep.training.run_info import format_batch_size, option_name
from microstep.utils.terminal import print_and_log


def run_accumulation_check(config: DictConfig) -> CheckResult:
    """Compare micro-batches, accumulated by the loop `rule`, with one large batch; pass if every window is exact."""
    components = build_components(variants.change_config(config, precision=variants.FP64))
    variants.check_window_fits(config, components.loaders.samples)
    with variants.memory_errors(config):
        windows = measure_windows(config, components)
    summary, parameters = accumulation_summary_rows(config, components), count_layer_parameters(components.model)
    check = AccumulationCheck(config.rule, variants.get_model_name(config), summary, parameters, windows)
    report, verdict = accumulation_report_text(check), accumulation_verdict_text(check)
    images, passed = {"weights": draw_accumulation_plot(check)}, all(one.is_exact for one in windows)
    return CheckResult(report, verdict, accumulation_as_json(check), images, passed=passed)


def measure_windows(config: DictConfig, components: Components) -> list[WindowMeasurement]:
    windows = load_checked_windows(components.loaders, components.task, components.precision, components.steps)
    print_and_log(f"measuring the {' and the '.join(one.name for one in windows)} of an epoch\n")
    rule = LOOPS[config.rule]
    shared = {"task": components.task, "max_grad_norm": config.max_grad_norm, "seed": config.seed}
    shared |= {"transform": build_transform(config, ALLOW_ALL)}
    return [measure_window(CauseIsolation(components.model, one, rule(one.shape), **shared)) for one in windows]


def count_layer_parameters(model: nn.Module) -> dict[str, int]:
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return {layer: sum(trained[name].numel() for name in names) for layer, names in group_by_layer(trained).items()}


def accumulation_summary_rows(config: DictConfig, components: Components) -> dict[str, str]:
    rule = (LOOPS[config.rule].__doc__ or "").rstrip(".")
    step = option_name(config, get_choices(), "step")
    device = machine.describe_device(components.device)
    return {
        **variants.subject_rows(config, components.dataset, components.model),
        "batch": format_batch_size(config),
        "loop": f"{config.rule}: {rule[:1].lower()}{rule[1:]}",
        **({} if step == "standard" else {"step": f"{step}: the gradient of its first pass"}),
        "computed in": f"fp64, {device}; untrained model of seed {config.seed}",
    }
