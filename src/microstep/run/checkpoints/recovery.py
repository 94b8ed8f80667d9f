"""The newest checkpoint that is whole, whatever has happened to the others."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from microstep.errors import CheckpointRefused
from microstep.run.checkpoints.checkpoints import Checkpoints
from microstep.run.checkpoints.manifest import CheckpointEntry, is_intact, write_manifest
from microstep.run.progress import Progress

log = logging.getLogger("microstep.notice")


@dataclass(frozen=True)
class RecoveredState:
    """A state to go on from."""

    state: dict[str, Any]
    progress: Progress


def recover_state(checkpoints: Checkpoints) -> RecoveredState | None:
    """Return the newest state that verifies, and let the manifest name nothing newer; None where there never was one.

    A best checkpoint that is lost is told of: the best is then chosen from the one that was found on.

    Raises:
        CheckpointRefused: where none of them verifies.
    """
    for entry, state, progress in iter_intact_checkpoints(checkpoints):
        best = find_best_entry(checkpoints, entry, progress)
        found = {"last": entry} | ({"best": best} if best else {})
        if found != {name: e for name, e in checkpoints.entries.items() if name != "previous"}:
            write_manifest(checkpoints.directory, found)
        checkpoints.entries = dict(found)
        return RecoveredState(state, progress)
    if checkpoints.entries or len(list(checkpoints.directory.glob("epoch-*.pt"))) > 1:  # one: it died in its first save
        raise CheckpointRefused(str(checkpoints.directory), "no checkpoint is whole", "start the run afresh elsewhere")
    return None


def iter_intact_checkpoints(checkpoints: Checkpoints) -> Iterator[tuple[CheckpointEntry, dict[str, Any], Progress]]:
    """Yield what verifies, the newest first; warn of what doesn't."""
    for which in ("last", "previous", "best"):
        if which not in checkpoints.entries:
            continue
        try:
            entry, state = checkpoints.entry(which), checkpoints.load(which)
            progress = Progress(**state["progress"])
        except (CheckpointRefused, KeyError, TypeError) as error:
            log.warning("the %s checkpoint is lost: %s", which, lost_checkpoint_reason(error))
            continue
        if which != "last":
            log.warning("going back to the %s checkpoint, of %s: what came after it is done again", which, entry.place)
        yield entry, state, progress


def lost_checkpoint_reason(error: Exception) -> str:
    """Return why a checkpoint is lost; what to do about it is being done."""
    return str(error).rpartition("; ")[0] if isinstance(error, CheckpointRefused) else "it is no run's state"


def find_best_entry(checkpoints: Checkpoints, entry: CheckpointEntry, progress: Progress) -> CheckpointEntry | None:
    """Return the entry of the best epoch so far; where it is lost, the one that was found takes its place."""
    best = checkpoints.entries.get("best")
    if progress.best_epoch == entry.epoch and not entry.window:
        return entry
    if best and best.epoch == progress.best_epoch and is_intact(checkpoints.directory / best.file, best):
        return best
    if progress.best_epoch:
        log.warning("the best checkpoint, of epoch %d, is lost: later ones can still be best", progress.best_epoch)
    progress.take_as_best()
    return None if entry.window else entry
