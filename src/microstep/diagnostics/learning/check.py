"""Runs the short trainings of check=learning, and looks for a setting that helps if one batch is not learned."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from omegaconf import DictConfig, OmegaConf

from microstep.components.dataset.sharing import share_datasets
from microstep.config.experiment import LATER
from microstep.diagnostics.drift.training import DriftTraining, start_training
from microstep.diagnostics.learning.faults import Measurements, describe_outputs, find_faults
from microstep.diagnostics.learning.report import draw_learning, format_measurements, format_verdict, to_numbers
from microstep.diagnostics.learning.short_training import LONGER_WINDOWS, SHORT_WINDOWS, train_briefly
from microstep.diagnostics.learning.start import Start, measure_start
from microstep.diagnostics.learning.trials import OFF, OneBatch, overfit
from microstep.diagnostics.learning_rate import CONSTANT, WINDOWS, RangeTest, measure
from microstep.diagnostics.result import CheckResult
from microstep.diagnostics.variants import change_config, subject_rows
from microstep.errors import Diverged
from microstep.training.device import describe_device
from microstep.utils.progress_bar import ProgressBars
from microstep.utils.tables import format_fields

RANGE_SECONDS, LEAST_RANGE = 60.0, 42  #: of the range test, about; the least number of its windows
USUAL: dict[str, dict[str, Any]] = {
    "gradient=none": {"gradient": LATER["gradient"]},
    "step=standard": {"step": {"_target_": "microstep.components.step.StandardStep"}},
    "precision=fp32": {"precision": {"_target_": "microstep.components.precision.full", "dtype": "float32"}},
    "max_grad_norm=null": {"max_grad_norm": None},
}


def run_learning_check(config: DictConfig) -> CheckResult:
    """Train on one batch, on the data for a while, and with growing learning rates; pass if no fault is found."""
    bars = ProgressBars(config.progress)
    with share_datasets():
        training = start_short(config, SHORT_WINDOWS)
        components, start = training.components, measure_start(config, training)
        rows = subject_rows(config, components.dataset, components.model)
        if start.outputs != start.expected_outputs:
            return refuse_outputs(start, rows)
        one_batch, short = overfit(config, bars), train_briefly(training, SHORT_WINDOWS, bars)
        test = measure_rates(config, short.seconds, bars)
        remedy = None if one_batch.is_learned or short.has_learned else find_remedy(config, test, bars)
        if not short.has_learned and remedy is None:
            short = train_briefly(start_short(config, LONGER_WINDOWS), LONGER_WINDOWS, bars)
    found = Measurements(start, one_batch, short, remedy)
    faults = find_faults(found)
    rows |= {"device": describe_device(components.device)}
    text, verdict = format_measurements(rows, found, test, config), format_verdict(found, faults)
    images, curves = {"learning": draw_learning(found, test)}, {"check/learning/one_batch": one_batch.losses}
    return CheckResult(text, verdict, to_numbers(found, faults, test), images, curves, found.learns and not faults)


def start_short(config: DictConfig, windows: int) -> DriftTraining:
    """Build a training whose schedule is squeezed into a few windows."""
    return start_training("short training", change_config(config, **OFF, steps=windows))


def refuse_outputs(start: Start, rows: dict[str, str]) -> CheckResult:
    """Return the result if the loss of the model's outputs can't be computed."""
    fault = describe_outputs(start)
    numbers = {"learns": False, "faults": {"outputs": fault}, "start": asdict(start)}
    return CheckResult(format_fields(rows), f"It does not learn: {fault}.", numbers, passed=False)


def measure_rates(config: DictConfig, seconds: float, bars: ProgressBars) -> RangeTest:
    """Return the losses of a range test that takes about a minute, if a window takes that many seconds."""
    windows = max(LEAST_RANGE, min(WINDOWS, int(RANGE_SECONDS / seconds)))
    changed = change_config(config, **OFF, scheduler=CONSTANT, steps=windows)
    try:
        return measure(start_training("range test", changed), bars, windows)
    except Diverged:  # not even the first loss is finite
        return RangeTest()


def find_remedy(config: DictConfig, test: RangeTest, bars: ProgressBars) -> tuple[str, OneBatch] | None:
    """Return the first usual setting with which one batch is learned. The learning rate is tried last."""
    for name, changes in iter_remedies(config, test):
        if (result := overfit(config, bars, **changes)).is_learned:
            return name, result
    return None


def iter_remedies(config: DictConfig, test: RangeTest) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield settings, as they are typed, that differ from those of the config, and the values to change."""
    for name, changes in USUAL.items():
        if any(config[key] != value for key, value in changes.items()):
            yield name, changes
    if config.optimizer.get("weight_decay"):
        yield "optimizer.weight_decay=0", {"optimizer": OmegaConf.merge(config.optimizer, {"weight_decay": 0.0})}
    if test.suggestion is not None:
        lr = {"lr": test.suggestion}
        yield f"optimizer.lr={test.suggestion:g}", {"optimizer": OmegaConf.merge(config.optimizer, lr)}
