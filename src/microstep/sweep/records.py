"""What a sweep knows of its runs: their run.json, and nothing that only one process would know."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from microstep.errors import MicrostepError, RunInUse
from microstep.files import known_json, write_json
from microstep.owner import LOCK, owning

STOP = ".stop"  #: in a sweep's directory: the number of the signal that stops it
KEPT = (LOCK, "train.log")  #: when a run starts afresh


def record_of(directory: Path) -> dict[str, Any]:
    """Return what run.json says; nothing where there is none, or it is damaged."""
    return known_json(directory / "run.json")


def bury(directory: Path, reason: str) -> None:
    """Record that a run failed whose process left no word; one that is at work, or has said how it ended, is left."""
    with suppress(RunInUse), owning(directory):
        record = record_of(directory)
        if record.get("status") in (None, "running"):
            write_json(directory / "run.json", record | {"status": "failed", "error": reason})


def cleared(directory: Path) -> None:
    """Take away what a run has left, but for its log, so that another may start in its place."""
    with suppress(RunInUse), owning(directory):  # the run that is to start will say that it is in use
        for path in directory.iterdir():
            if path.name not in KEPT:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def at_work(directory: Path) -> bool:
    """Say whether a process has a run's directory."""
    if not (directory / LOCK).exists():
        return False
    try:
        with owning(directory):
            return False
    except MicrostepError:
        return True
