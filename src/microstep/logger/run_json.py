"""run.json: what a run is, how far it is, what it came to."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from microstep.errors import MicrostepError, Stopped
from microstep.files import write_json
from microstep.logger.records import EpochReport, Results, WindowReport


class RunRecord:
    """Keeps run.json true: `running` until it is closed; then `finished`, `interrupted` or `failed`."""

    def __init__(self, run_dir: Path) -> None:
        self.file = run_dir / "run.json"
        self.facts: dict[str, Any] = {"status": "running", "error": None}

    @contextmanager
    def building(self) -> Iterator[None]:
        """Record what fails before the first epoch, too."""
        self.update()
        try:
            yield
        except BaseException as error:
            self.close(error)
            raise

    def update(self, **facts: Any) -> None:
        """Add or change facts, and write."""
        self.facts |= facts
        write_json(self.file, self.facts)

    def window(self, report: WindowReport) -> None:
        """Steps are TensorBoard's."""

    def epoch(self, report: EpochReport) -> None:
        """Note how far the run is."""
        metrics = self.facts.get("metrics", {})
        if report.best:
            metrics = metrics | {"best": {"epoch": report.epoch, **report.val}}
        self.update(
            epoch=report.epoch,
            optimizer_steps=report.optimizer_steps,
            skipped_steps=report.skipped_steps,
            samples_seen=report.samples_seen,
            samples_per_second=round(report.samples_per_second, 1),
            metrics=metrics,
        )

    def finish(self, results: Results) -> None:
        """Note the best checkpoint's metrics."""
        metrics = self.facts.get("metrics", {}) | {name: dict(split.metrics) for name, split in results.splits.items()}
        self.update(train_seconds=round(results.train_seconds, 3), metrics=metrics, **peak_memory())

    def close(self, error: BaseException | None) -> None:
        """Record how the run ended."""
        if error is None:
            self.update(status="finished")
        elif isinstance(error, Stopped | KeyboardInterrupt):
            self.update(status="interrupted", error=f"stopped by signal {getattr(error, 'signum', 2)}")
        else:
            known = isinstance(error, MicrostepError)
            self.update(status="failed", error=str(error) if known else f"{type(error).__name__}: {error}")


def peak_memory() -> dict[str, int]:
    """Return the most memory the process has held: the GPU's where there is one in use, else resident memory."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return {"peak_memory_bytes": torch.cuda.max_memory_allocated()}
    unit = 1 if sys.platform == "darwin" else 1024
    return {"peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
