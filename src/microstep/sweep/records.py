"""Changes run directories on behalf of a sweep: marks a run as failed, clears its files, looks for its process."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from microstep.errors import MicrostepError, RunInUse
from microstep.owner import LOCK, owning
from microstep.run_record import RunRecord
from microstep.utils.json_files import write_json

STOP = ".stop"  #: file of a sweep's directory with the number of the signal that stops the sweep
KEPT = (LOCK, "train.log")  #: files that stay when a run starts afresh


def bury(directory: Path, reason: str) -> None:
    """Mark a run as failed, unless its process is at work or has recorded how it ended."""
    with suppress(RunInUse), owning(directory):
        record = RunRecord.read(directory)
        if record.status in (None, "running"):
            write_json(directory / "run.json", {**record.content, "status": "failed", "error": reason})


def cleared(directory: Path) -> None:
    """Remove the files of a run, except its log, so that another run may start in its directory."""
    with suppress(RunInUse), owning(directory):  # the run that starts next reports that the directory is in use
        for path in directory.iterdir():
            if path.name not in KEPT:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def at_work(directory: Path) -> bool:
    """Return whether a process has locked a run directory."""
    if not (directory / LOCK).exists():
        return False
    try:
        with owning(directory):
            return False
    except MicrostepError:
        return True
