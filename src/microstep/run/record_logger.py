"""Writes run.json: description, progress and results of a run. Truncates the logs of a resumed run."""

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from filelock import BaseFileLock

from microstep.errors import CheckpointRefused, Diverged, MicrostepError, Pruned, Stopped, format_error
from microstep.run.layout import LOG_PATTERNS
from microstep.types.events import EpochReport, Results, WindowReport
from microstep.utils.files import storage_errors
from microstep.utils.json_files import write_json


class RunRecordLogger:
    """Keeps run.json up to date. Its status is `running` until `close`, which says how the run ended.

    `close` releases the lock. A resumed run keeps the `previous` facts of its run.json.
    """

    def __init__(self, run_dir: Path, lock: BaseFileLock, previous: Mapping[str, Any] | None = None) -> None:
        self.file, self.lock = run_dir / "run.json", lock
        self.facts: dict[str, Any] = {**(previous or {}), "status": "running", "error": None}

    @contextmanager
    def record_build_failure(self) -> Iterator[None]:
        """Record an error that occurs while the trainer is built, and release the directory then."""
        self.update()
        try:
            yield
        except BaseException as error:
            self.close(error)
            raise

    def update(self, **facts: Any) -> None:
        self.facts |= facts
        write_json(self.file, self.facts)

    def window(self, report: WindowReport) -> None:
        """Ignore windows."""

    def epoch(self, report: EpochReport) -> None:
        metrics = self.facts.get("metrics", {})
        if report.best:
            metrics = metrics | {"best": {"epoch": report.epoch, **report.val}}
        names = ("epoch", "optimizer_steps", "skipped_steps", "samples_seen")
        counts = {name: getattr(report, name) for name in names}
        stopped = {} if report.stopped is None else {"stopped": {"by": report.stopped, "epoch": report.epoch}}
        self.update(**counts, **stopped, samples_per_second=round(report.samples_per_second, 1), metrics=metrics)

    def finish(self, results: Results) -> None:
        metrics = self.facts.get("metrics", {}) | {name: dict(split.metrics) for name, split in results.splits.items()}
        checkpoints = {name: round(value, 4) for name, value in asdict(results.saving).items()}
        seconds, memory = round(results.train_seconds, 3), results.peak_memory_bytes
        self.facts |= {"compiling": dict(results.compiling)} if results.compiling else {}
        self.update(train_seconds=seconds, peak_memory_bytes=memory, metrics=metrics, checkpoints=checkpoints)

    def close(self, error: BaseException | None) -> None:
        try:
            pruned = {"pruned": {"epoch": self.facts["epoch"]}} if isinstance(error, Pruned) else {}  # resumed or not
            self.update(**outcome_fields(error), **pruned)
        finally:
            self.lock.release()


def outcome_fields(error: BaseException | None) -> dict[str, Any]:
    if error is None:
        return {"status": "finished"}
    if isinstance(error, Stopped | KeyboardInterrupt):
        return {"status": "interrupted", "error": f"stopped by {signal.Signals(getattr(error, 'signum', 2)).name}"}
    if isinstance(error, Pruned):
        return {"status": "pruned", "error": error.args[1]}
    kind: dict[str, Any] = {"resumable": is_resumable(error), "diverged": isinstance(error, Diverged)}
    kind |= {"diverged_window": error.window} if isinstance(error, Diverged) and error.window else {}
    return {"status": "failed", "error": format_error(error), **kind}


def is_resumable(error: BaseException) -> bool:
    """Return whether a resume may succeed: the storage, the data or the memory failed, not the run's own code."""
    outside = isinstance(error, MicrostepError | OSError | MemoryError | torch.OutOfMemoryError)
    return outside and not isinstance(error, Diverged | CheckpointRefused)


def find_logs(run_dir: Path) -> list[Path]:
    return [file for pattern in LOG_PATTERNS for file in sorted(run_dir.glob(pattern))]


def truncate_logs(run_dir: Path, sizes: Mapping[str, int]) -> None:
    """Truncate each log to its size at a checkpoint, and remove the others, so that no gap and no duplicate follows.

    `sizes` has bytes by file name; it is empty for a run that starts from the beginning.
    """
    for file in find_logs(run_dir):
        with storage_errors(file):
            if file.name not in sizes:
                file.unlink()
            elif file.stat().st_size > sizes[file.name]:
                with file.open("r+b") as stream:
                    stream.truncate(sizes[file.name])
