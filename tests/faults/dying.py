"""A save that dies at its n-th system call, in a process of its own: `python -m tests.faults.dying DIR [in_place]`.

For n = 1, 2, … a child makes DIR/n, saves three checkpoints there, and in the third is killed (SIGKILL) right before
its n-th call, or in the middle of it where it is a write. It ends at the first n at which nothing is left to die at.
Each child's calls of that save are printed as a line of JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from microstep.run.checkpoints import checkpoints
from microstep.run.checkpoints.checkpoints import Checkpoints
from microstep.run.lock import lock_directory
from microstep.run.progress import Progress
from microstep.utils import files, json_files

CALLS = ("open", "write", "fsync", "replace", "unlink")


def state(epoch: int) -> dict[str, Any]:
    return {
        "model": {"weight": torch.full((50, 50), float(epoch))},
        "progress": vars(Progress(epoch=epoch, best_epoch=2)),
    }


def save(saved: Checkpoints, epoch: int, best: bool) -> None:
    saved.save(state(epoch), Progress(epoch=epoch, optimizer_steps=10 * epoch), best)
    saved.wait()


class Fate:
    """Counts the calls by which files are changed, and dies at one of them."""

    def __init__(self, fatal: int, report: int) -> None:
        self.fatal, self.report, self.count = fatal, report, 0

    def watch(self, name: str) -> None:
        real: Callable[..., Any] = getattr(os, name)

        def watched(target: Any, *arguments: Any, **options: Any) -> Any:
            if target == self.report or (name == "open" and not arguments[0] & os.O_CREAT):
                return real(target, *arguments, **options)  # opening a directory to flush it changes nothing
            self.count += 1
            place = Path(f"/proc/self/fd/{target}").readlink() if isinstance(target, int) else Path(target)
            line = json.dumps([self.fatal, name, Path(arguments[0]).name if name == "replace" else place.name])
            self.write(self.report, f"{line}\n".encode())
            if self.count == self.fatal:
                if name == "write":
                    self.write(target, bytes(arguments[0])[: len(arguments[0]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(target, *arguments, **options)

        setattr(os, name, watched)

    def begin(self) -> None:
        self.write = os.write
        for name in CALLS:
            self.watch(name)


def in_place(file: Path, content: bytes, durable: bool = True) -> None:
    """Write a file in place, as most programs do: a planted bug."""
    files.write_new_file(file, content, durable)


def die(directory: Path, fatal: int) -> None:
    """Save three times; die in the third."""
    lock = lock_directory(directory)
    saved = Checkpoints(directory / "checkpoints")
    save(saved, 1, best=True)
    save(saved, 2, best=True)
    fate = Fate(fatal, report=1)
    fate.begin()
    save(saved, 3, best=True)
    lock.release()
    os._exit(0)


def main(directory: Path, mutant: bool) -> None:
    if mutant:
        checkpoints.write_atomic = json_files.write_atomic = in_place
    for fatal in range(1, 100):
        (directory / str(fatal)).mkdir()
        pid = os.fork()
        if not pid:
            die(directory / str(fatal), fatal)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0:
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]), mutant=len(sys.argv) > 2)
