"""A process that races for directories with another one: `python -m tests.run.racing NAME`.

For each line `DIRECTORY SEED` on stdin it starts, resumes, evaluates and gives up runs in that directory, in an order
that the seed determines, and prints a line: what it has saved there, or how another process has harmed it.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from microstep.errors import ConfigError, RunInUse
from microstep.run.directory import check_left_by_start, has_checkpoint, new_directory, was_started_in
from microstep.run.layout import remove_temporaries
from microstep.run.lock import directory_lock
from microstep.utils.files import append_bytes, write_atomic, write_directory
from microstep.utils.json_files import write_json

REPORT = ("predictions.csv", "scores.csv", "confusion_matrix.png")


class Racer:
    """Does what the programs do in a directory, and notices what another process does to it."""

    def __init__(self, name: str, directory: Path, chance: random.Random) -> None:
        self.name, self.directory, self.chance = name, directory, chance
        self.done: list[str] = []

    def train(self) -> None:
        """Write the first files of a run, and find all of them unchanged a moment later."""
        files = {"config.yaml": self.name.encode(), "metrics.csv": b"epoch\n1\n"}
        write_json(self.directory / "run.json", {"status": "running", "error": None})
        (self.directory / "metrics.csv").unlink(missing_ok=True)
        write_atomic(self.directory / "config.yaml", files["config.yaml"], durable=False)
        append_bytes(self.directory / "metrics.csv", files["metrics.csv"])
        time.sleep(self.chance.random() / 500)
        assert {name: (self.directory / name).read_bytes() for name in files} == files, "a run was written into"

    def start(self) -> None:
        with new_directory(self.directory, exact_name=True), directory_lock(self.directory):
            self.train()
            (self.directory / "checkpoints").mkdir(exist_ok=True)
            write_atomic(self.directory / "checkpoints" / "epoch-0001.pt", b"weights", durable=False)
            write_json(self.directory / "checkpoints" / "manifest.json", {})
            self.done.append("saved")

    def give_up(self) -> None:
        with new_directory(self.directory, exact_name=True), directory_lock(self.directory):
            self.train()
            self.done.append("discarded")
            raise ConfigError("model", "it doesn't fit the data", "choose another")

    def die(self) -> None:
        """End before the first checkpoint, in a way that leaves the directory."""
        with suppress(RuntimeError), new_directory(self.directory, exact_name=True), directory_lock(self.directory):
            self.train()
            self.done.append("died")
            raise RuntimeError

    def resume(self) -> None:
        if has_checkpoint(self.directory):
            check_left_by_start(self.directory, was_started_in)
            with directory_lock(self.directory):
                remove_temporaries(self.directory)
                self.train()
            self.done.append("resumed")

    def evaluate(self) -> None:
        if has_checkpoint(self.directory):
            with write_directory(self.directory / "reports" / "test") as draft:
                for name in REPORT:
                    (draft / name).write_text(name)
                    time.sleep(self.chance.random() / 1000)
            assert {name: (self.directory / "reports" / "test" / name).read_text() for name in REPORT}
            self.done.append("evaluated")

    def race(self) -> str:
        actions = [self.start, self.give_up, self.die, self.resume, self.evaluate, self.evaluate]
        self.chance.shuffle(actions)
        actions = [self.give_up] * self.chance.randrange(8) + actions  # before anything keeps the directory
        try:
            for action in actions:
                self.attempt(action)
        except BaseException as error:
            return f"{self.name} in {action.__name__}: {type(error).__name__} {error}"
        return " ".join(["raced", *self.done])

    def attempt(self, action: Callable[[], None]) -> None:
        """Do it, and try again at once as long as the directory is in use, to come in at the worst moment."""
        while True:
            try:
                return action()
            except RunInUse:
                continue
            except ConfigError:  # it was refused, or gave up
                return None


if __name__ == "__main__":
    for line in sys.stdin:
        directory, _, seed = line.strip().rpartition(" ")
        print(Racer(sys.argv[1], Path(directory), random.Random(sys.argv[1] + seed)).race(), flush=True)
