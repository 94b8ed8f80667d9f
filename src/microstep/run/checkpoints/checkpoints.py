"""Saves and loads the checkpoints of a run, and decides when one is due."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

from microstep.errors import CheckpointRefused, MicrostepError
from microstep.run.checkpoints.archive import deserialize_state, serialize_state, snapshot
from microstep.run.checkpoints.manifest import CheckpointEntry, make_entry, read_manifest, read_verified, write_manifest
from microstep.run.layout import find_checkpoint_files
from microstep.run.lock import directory_lock, submit_locked
from microstep.run.progress import Position, Progress
from microstep.types.events import SavingCost
from microstep.utils.files import storage_errors, sync_to_disk, write_atomic

log = logging.getLogger("microstep.notice")


class Checkpoints:
    """Keeps the `last` checkpoint, the `previous` one and the `best` by validation; some may be the same file.

    A state is copied at once and written in a second thread. The file is complete and on the disk before the manifest
    names it, and only then are older files removed: whenever the process dies, the manifest names a good checkpoint.
    The run directory, which is the parent, stays locked until then, also if the trainer is interrupted or dropped.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.entries = read_manifest(directory)
        last = self.entries.get("last")
        self.saved_position = last.position if last else Position()
        self.saving = SavingCost()
        self.executor = futures.ThreadPoolExecutor(1, "checkpoint")
        self.pending_write: futures.Future[None] | None = None

    def save(self, state: Mapping[str, Any], progress: Progress, best: bool, logs: Sequence[Path] = ()) -> None:
        """Copy a state of tensors and plain values, and start to write it. Key `model` is the model's state dict.

        `logs`, whose sizes are in the state, are flushed to the disk first. Raise CheckpointRefused if the state holds
        anything else, StorageError if the checkpoint before could not be written.
        """
        start = perf_counter()
        self.wait()
        copied, position = snapshot(state), progress.position
        write = partial(self.write, copied, position, progress.optimizer_steps, best, logs)
        self.pending_write = submit_locked(self.executor, write, self.directory.parent)
        self.saved_position = position
        self.saving.saves += 1
        self.saving.pause_seconds += perf_counter() - start

    def write(self, state: Mapping[str, Any], position: Position, steps: int, best: bool, logs: Sequence[Path]) -> None:
        """Write a checkpoint, then name it in the manifest, then remove the files that the manifest no longer names."""
        start = perf_counter()
        with storage_errors(self.directory):
            self.directory.mkdir(exist_ok=True)
            sync_to_disk(self.directory.parent)
            for file in logs:
                sync_to_disk(file)
        content = serialize_state(state)
        entry = make_entry(content, position, steps)
        write_atomic(self.directory / entry.file, content)
        self.update_manifest(entry, best)
        self.saving.bytes = len(content)
        self.saving.write_seconds += perf_counter() - start

    def update_manifest(self, entry: CheckpointEntry, best: bool) -> None:
        """Make an entry the last one. The newest intact one before it becomes the previous one."""
        older = [e for e in map(self.entries.get, ("last", "previous")) if e and e.file != entry.file]
        previous = next(filter(self.is_intact, older), None)
        named = {"last": entry, "previous": previous, "best": entry if best else self.entries.get("best")}
        self.keep({name: e for name, e in named.items() if e is not None})

    def keep(self, kept: Mapping[str, CheckpointEntry]) -> None:
        """Write the manifest, then remove the files that it doesn't name."""
        write_manifest(self.directory, kept)
        self.entries = dict(kept)
        with storage_errors(self.directory):
            for file in set(find_checkpoint_files(self.directory)) - {self.directory / e.file for e in kept.values()}:
                file.unlink(missing_ok=True)

    def keep_best(self) -> None:
        """Remove all but the best checkpoint; warn if that fails, as when another process has locked the run."""
        try:
            with directory_lock(self.directory.parent):
                best = self.entry("best")
                is_last = self.entries.get("last") == best
                self.keep({"last": best, "best": best} if is_last else {"best": best})
        except MicrostepError as error:
            log.warning("all checkpoints are kept: %s", error)

    def is_intact(self, entry: CheckpointEntry) -> bool:
        with suppress(CheckpointRefused):
            read_verified(self.directory / entry.file, entry)
            return True
        return False

    def wait(self) -> None:
        """Wait until the last checkpoint is written. Raise StorageError, once, if it could not be written."""
        if self.pending_write is not None:
            futures.wait([self.pending_write])  # if a signal interrupts it, the write is still pending
            pending, self.pending_write = self.pending_write, None
            pending.result()

    def raise_failure(self) -> None:
        """Raise the error of the last save if it has failed already, without waiting."""
        if self.pending_write is not None and self.pending_write.done():
            self.wait()

    def entry(self, name: str) -> CheckpointEntry:
        """Return the `best`, `last` or `previous` entry. Raise CheckpointRefused if it is missing or damaged."""
        self.wait()
        if name not in self.entries and self.entries.keys() == {"best"}:
            remedy = "evaluate checkpoint=best, or start a new run"
            raise CheckpointRefused(str(self.directory), f"checkpoint.keep=best has dropped the {name} one", remedy)
        if name not in self.entries:
            reason = f"there is no {name} checkpoint"
            raise CheckpointRefused(str(self.directory), reason, "let the run finish an epoch")
        entry = self.entries[name]
        if entry is None:
            raise CheckpointRefused(str(self.directory), f"the manifest's {name} entry is damaged", "use another run")
        return entry

    def load(self, name: str) -> dict[str, Any]:
        """Return the state in the `best`, `last` or `previous` checkpoint, on the CPU.

        Raise CheckpointRefused if the file is missing or damaged, or holds more than tensors and plain values.
        """
        entry = self.entry(name)
        file = self.directory / entry.file
        return deserialize_state(file, read_verified(file, entry))


class CheckpointSchedule:
    """Decides when a checkpoint is due. It does not change results, only the work that a crash can lose.

    Args:
        every_epochs: epochs between checkpoints; the best and the last epoch are always saved.
        every_minutes: minutes between checkpoints within an epoch, or None.
        every_steps: windows between checkpoints within an epoch, or None.
        keep: `all` checkpoints of a finished run, or `best` for that one alone.
    """

    def __init__(
        self,
        every_epochs: int = 1,
        every_minutes: float | None = None,
        every_steps: int | None = None,
        keep: str = "all",
    ):
        self.every_epochs, self.every_minutes, self.every_steps = every_epochs, every_minutes, every_steps
        self.keep = keep
        self.restart_timer()

    @contextmanager
    def keeping(self, checkpoints: Checkpoints) -> Iterator[None]:
        """Drop what `keep` says after a block in which the run finishes: run.json must say so first."""
        yield
        if self.keep == "best":
            checkpoints.keep_best()

    def restart_timer(self) -> None:
        self.timer_start = monotonic()

    def is_due_after_epoch(self, epoch: int) -> bool:
        """Return whether to save after an epoch, counted from 1."""
        return epoch % self.every_epochs == 0

    def is_due_after_window(self, windows: int) -> bool:
        """Return whether to save after this number of windows of the run."""
        if self.every_steps is not None and windows % self.every_steps == 0:
            return True
        return self.every_minutes is not None and monotonic() - self.timer_start >= 60 * self.every_minutes
