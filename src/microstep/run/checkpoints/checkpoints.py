"""Writes and loads a run's checkpoints, and decides when one is due."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

from microstep.errors import CheckpointRefused
from microstep.run.checkpoints.archive import deserialize_state, serialize_state, snapshot
from microstep.run.checkpoints.manifest import (
    CheckpointEntry,
    is_intact,
    make_entry,
    read_manifest,
    read_verified,
    write_manifest,
)
from microstep.run.progress import Position, Progress
from microstep.types.events import SavingCost
from microstep.utils.files import storage_errors, sync_to_disk, write_atomic


class Checkpoints:
    """The last checkpoint, the one before it, and the best by validation; some may be the same file.

    A checkpoint is copied at once and written in a second thread. It is written whole, to the disk, before the manifest
    points to it, and nothing is removed before that: whenever the process dies, the manifest names a good one.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.entries = read_manifest(directory)
        last = self.entries.get("last")
        self.place = last.place if last else Position()  #: that was saved last
        self.saving = SavingCost()
        self.thread = ThreadPoolExecutor(1, "checkpoint")
        self.writing: Future[None] | None = None

    def save(self, state: Mapping[str, Any], progress: Progress, best: bool, logs: Sequence[Path] = ()) -> None:
        """Copy the state, and have it written.

        Args:
            state: tensors and plain values only; key `model` is the model's state dict.
            progress: where the run stands.
            best: whether it is the best so far.
            logs: files that the state tells the size of: they are flushed to the disk first.

        Raises:
            StorageError: where this one can't be begun, or the one before could not be written.
        """
        start = perf_counter()
        self.settle()
        copied = snapshot(state)
        position, steps = progress.place, progress.optimizer_steps
        self.writing = self.thread.submit(self.write, copied, position, steps, best, logs)
        self.place = position
        self.saving.saves += 1
        self.saving.pause_seconds += perf_counter() - start

    def write(self, state: Mapping[str, Any], position: Position, steps: int, best: bool, logs: Sequence[Path]) -> None:
        """Write a checkpoint whole, then point the manifest at it, then remove what the manifest no longer names."""
        start = perf_counter()
        with storage_errors(self.directory):
            self.directory.mkdir(exist_ok=True)
            for file in logs:
                sync_to_disk(file)
        content = serialize_state(state)
        entry = make_entry(content, position, steps)
        write_atomic(self.directory / entry.file, content)
        self.point_at(entry, best)
        self.saving.bytes = len(content)
        self.saving.write_seconds += perf_counter() - start

    def point_at(self, entry: CheckpointEntry, best: bool) -> None:
        """Make an entry the last, keep the newest before it that verifies, and remove files that are named no more."""
        before = next((e for e in map(self.entries.get, ("last", "previous")) if e and self.good(e, entry)), None)
        named = {"last": entry, "previous": before, "best": entry if best else self.entries.get("best")}
        kept = {name: e for name, e in named.items() if e is not None}
        write_manifest(self.directory, kept)
        self.entries = dict(kept)
        with storage_errors(self.directory):
            for file in set(self.directory.glob("epoch-*.pt")) - {self.directory / e.file for e in kept.values()}:
                file.unlink(missing_ok=True)

    def good(self, entry: CheckpointEntry, newer: CheckpointEntry) -> bool:
        """Say whether an entry's file is whole, and not that of a newer one."""
        return entry.file != newer.file and is_intact(self.directory / entry.file, entry)

    def settle(self) -> None:
        """Wait until what was saved is written.

        Raises:
            StorageError: where it could not be.
        """
        writing, self.writing = self.writing, None
        if writing is not None:
            writing.result()

    def raise_failure(self) -> None:
        """Raise what went wrong with the last save, if it has; wait for nothing."""
        if self.writing is not None and self.writing.done():
            self.settle()

    def entry(self, name: str) -> CheckpointEntry:
        """Return what the manifest says of the `best`, `last` or `previous` checkpoint.

        Raises:
            CheckpointRefused: where there is none, or its entry is damaged.
        """
        self.settle()
        if name not in self.entries:
            reason = f"there is no {name} checkpoint"
            raise CheckpointRefused(str(self.directory), reason, "let the run finish an epoch")
        entry = self.entries[name]
        if entry is None:
            raise CheckpointRefused(str(self.directory), f"the manifest's {name} entry is damaged", "use another run")
        return entry

    def load(self, name: str) -> dict[str, Any]:
        """Return a state, on the CPU, checked by size and SHA-256 before it is read.

        Raises:
            CheckpointRefused: where it is missing, is not what was written, or holds more than tensors and values.
        """
        entry = self.entry(name)
        file = self.directory / entry.file
        return deserialize_state(file, read_verified(file, entry))


class CheckpointSchedule:
    """Says when a checkpoint is due. It changes no result: only how much of it a crash can cost.

    Args:
        every_epochs: finished epochs between two checkpoints; the best and the last are saved in any case.
        every_minutes: minutes between two checkpoints in mid-epoch, or None.
        every_steps: windows between two checkpoints in mid-epoch, or None.
    """

    def __init__(self, every_epochs: int = 1, every_minutes: float | None = None, every_steps: int | None = None):
        self.every_epochs, self.every_minutes, self.every_steps = every_epochs, every_minutes, every_steps
        self.saved()

    def saved(self) -> None:
        """Begin to count the minutes anew."""
        self.since = monotonic()

    def after_epoch(self, epoch: int) -> bool:
        """Say whether to save after an epoch, counted from 1."""
        return epoch % self.every_epochs == 0

    def after_window(self, windows: int) -> bool:
        """Say whether to save after so many windows of the run."""
        if self.every_steps is not None and windows % self.every_steps == 0:
            return True
        return self.every_minutes is not None and monotonic() - self.since >= 60 * self.every_minutes
