"""run.json: what a run is, how far it is, what it came to."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock

from microstep.errors import MicrostepError, Stopped
from microstep.files import write_json
from microstep.logger.records import EpochReport, Results, WindowReport


class RunRecord:
    """Keeps run.json true: `running` until it is closed; then `finished`, `interrupted` or `failed`.

    Args:
        run_dir: the run's.
        lock: what makes the directory this process's own; released when it is closed.
        before: what run.json says of a run that is taken up again.
    """

    def __init__(self, run_dir: Path, lock: FileLock, before: Mapping[str, Any] | None = None) -> None:
        self.file, self.lock = run_dir / "run.json", lock
        self.facts: dict[str, Any] = {**(before or {}), "status": "running", "error": None}

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
        saving = {name: round(value, 4) for name, value in asdict(results.saving).items()}
        self.update(
            train_seconds=round(results.train_seconds, 3),
            peak_memory_bytes=results.peak_memory_bytes,
            metrics=metrics,
            checkpoints=saving,
        )

    def close(self, error: BaseException | None) -> None:
        """Record how the run ended, and give the directory back."""
        try:
            self.update(**outcome(error))
        finally:
            self.lock.release()


def outcome(error: BaseException | None) -> dict[str, Any]:
    """Return how a run ended."""
    if error is None:
        return {"status": "finished"}
    if isinstance(error, Stopped | KeyboardInterrupt):
        return {"status": "interrupted", "error": f"stopped by {signal.Signals(getattr(error, 'signum', 2)).name}"}
    known = isinstance(error, MicrostepError)
    return {"status": "failed", "error": str(error) if known else f"{type(error).__name__}: {error}"}
