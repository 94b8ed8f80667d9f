"""Runs the check that `check=` names."""

from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig

from microstep.diagnostics import accumulation, drift, learning, learning_rate, resume
from microstep.diagnostics.precision import check as precision
from microstep.diagnostics.result import CheckResult, write_result
from microstep.diagnostics.variants import in_one_process
from microstep.training.device import torch_errors
from microstep.utils.terminal import install_notice_handler

CHECK_FUNCTIONS: dict[str, Callable[[DictConfig], CheckResult]] = {
    "accumulation": accumulation.run_accumulation_check,
    "precision": precision.run_precision_check,
    "drift": drift.run_drift_check,
    "resume": resume.run_resume_check,
    "learning": learning.run_learning_check,
    "lr": learning_rate.run_learning_rate_check,
}


@torch_errors()
def run_check(config: DictConfig, directory: Path) -> int:
    """Run the check `config.check` and write its results into `directory`.

    Returns:
        The exit code: 0 if the check passes, else 1.

    Raises:
        MicrostepError: training would refuse the config, the data or the machine.
    """
    install_notice_handler()
    result = CHECK_FUNCTIONS[config.check](in_one_process(config))
    write_result(result, config.check, directory)
    return 0 if result.passed else 1
