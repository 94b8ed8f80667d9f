"""The examinations by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig

from microstep.components.dataset.workers import loader_errors
from microstep.diagnostics import accumulation, drift
from microstep.diagnostics.precision import check as precision
from microstep.diagnostics.result import Finding, tell
from microstep.utils.terminal import install_notice_handler

EXAMINATIONS: dict[str, Callable[[DictConfig], Finding]] = {
    "accumulation": accumulation.look,
    "precision": precision.look,
    "drift": drift.look,
}


@loader_errors()
def examine(config: DictConfig, directory: Path) -> int:
    """Look at an experiment as `check` asks; return the exit code: 0 where all is well, 1 where it isn't.

    Raises:
        MicrostepError: for a config, data or a machine that training would refuse, too.
    """
    install_notice_handler()
    finding = EXAMINATIONS[config.check](config)
    tell(finding, config.check, directory)
    return 0 if finding.passed else 1
