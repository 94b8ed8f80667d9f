"""A task whose process is killed when it is to write the report, if a file `die` says so."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from microstep.components.task import Classification
from microstep.types.data import Predictions, Report


class DyingReport(Classification):
    def report(self, predictions: Predictions, directory: Path) -> Report:
        if Path("die").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().report(predictions, directory)
