"""Finds the newest intact checkpoint of a run."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from microstep.errors import CheckpointRefused
from microstep.run.checkpoints.checkpoints import Checkpoints
from microstep.run.checkpoints.manifest import CheckpointEntry, write_manifest
from microstep.run.layout import find_checkpoint_files
from microstep.run.progress import Progress

log = logging.getLogger("microstep.notice")


@dataclass(frozen=True)
class RecoveredState:
    """State from which a run resumes."""

    state: dict[str, Any]
    progress: Progress


def recover_state(checkpoints: Checkpoints) -> RecoveredState | None:
    """Return the newest intact state, and remove newer entries from the manifest; None if nothing was saved yet.

    If the best checkpoint is lost, a warning says so, and the best is chosen from the recovered epoch on. Raise
    CheckpointRefused if no checkpoint is intact.
    """
    if checkpoints.entries.keys() == {"best"}:
        checkpoints.entry("last")  # refuses a run that has dropped it: it would train again from the best one
    for entry, state, progress in iter_intact_checkpoints(checkpoints):
        best = find_best_entry(checkpoints, entry, progress)
        found = {"last": entry} | ({"best": best} if best else {})
        if found != {name: e for name, e in checkpoints.entries.items() if name != "previous"}:
            write_manifest(checkpoints.directory, found)
        checkpoints.entries = dict(found)
        return RecoveredState(state, progress)
    if checkpoints.entries or len(find_checkpoint_files(checkpoints.directory)) > 1:  # one: it died in its first save
        raise CheckpointRefused(str(checkpoints.directory), "no checkpoint is whole", "start the run afresh elsewhere")
    return None


def iter_intact_checkpoints(checkpoints: Checkpoints) -> Iterator[tuple[CheckpointEntry, dict[str, Any], Progress]]:
    for name in [name for name in ("last", "previous", "best") if name in checkpoints.entries]:
        try:
            entry, state = checkpoints.entry(name), checkpoints.load(name)
            progress = Progress(**state["progress"])
        except (CheckpointRefused, KeyError, TypeError) as error:
            refused = isinstance(error, CheckpointRefused)
            reason = str(error).rpartition("; ")[0] if refused else "it is no run's state"
            log.warning("the %s checkpoint is lost: %s", name, reason)
            continue
        if name != "last":
            message = "going back to the %s checkpoint, of %s: what came after it is done again"
            log.warning(message, name, entry.position)
        yield entry, state, progress


def find_best_entry(checkpoints: Checkpoints, entry: CheckpointEntry, progress: Progress) -> CheckpointEntry | None:
    """Return the entry of the best epoch so far. If it is lost, the recovered one replaces it."""
    best = checkpoints.entries.get("best")
    if progress.best_epoch == entry.epoch and not entry.window:
        return entry
    if best and best.epoch == progress.best_epoch and checkpoints.is_intact(best):
        return best
    if progress.best_epoch:
        log.warning("the best checkpoint, of epoch %d, is lost: later ones can still be best", progress.best_epoch)
    progress.mark_as_best()
    return None if entry.window else entry
