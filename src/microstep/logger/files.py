"""The logs of a run that is taken up again: cut back to where its checkpoint was made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from microstep.components.logger.event_file import PREFIX
from microstep.utils.files import storing

LOGS = ("metrics.csv", f"{PREFIX}.*")  #: what grows with the run; train.log tells of every attempt


def logs_of(run_dir: Path) -> list[Path]:
    """Return the files that grow with a run, in order."""
    return [file for pattern in LOGS for file in sorted(run_dir.glob(pattern))]


def cut_back(run_dir: Path, sizes: Mapping[str, int]) -> None:
    """Give each log the size it had, and remove those that were not there: no gap and no duplicate follows.

    Args:
        sizes: bytes by name, as a checkpoint has them; empty for a run that starts afresh.
    """
    for file in logs_of(run_dir):
        with storing(file):
            if file.name not in sizes:
                file.unlink()
            elif file.stat().st_size > sizes[file.name]:
                with file.open("r+b") as stream:
                    stream.truncate(sizes[file.name])
