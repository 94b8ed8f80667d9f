"""The examinations by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig

from microstep.components.dataset.workers import loader_errors
from microstep.diagnostics import accumulation, drift
from microstep.diagnostics.precision import check as precision
from microstep.diagnostics.result import CheckResult, write_result
from microstep.utils.terminal import install_notice_handler

CHECK_FUNCTIONS: dict[str, Callable[[DictConfig], CheckResult]] = {
    "accumulation": accumulation.run_accumulation_check,
    "precision": precision.run_precision_check,
    "drift": drift.run_drift_check,
}


@loader_errors()
def run_check(config: DictConfig, directory: Path) -> int:
    """Look at an experiment as `check` asks; return the exit code: 0 where all is well, 1 where it isn't.

    Raises:
        MicrostepError: for a config, data or a machine that training would refuse, too.
    """
    install_notice_handler()
    finding = CHECK_FUNCTIONS[config.check](config)
    write_result(finding, config.check, directory)
    return 0 if finding.passed else 1
