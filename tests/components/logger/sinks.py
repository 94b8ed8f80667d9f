"""Sinks that refuse, break, hang, lag or die."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from microstep.components.logger.sinks import JsonLines


class Refusing(JsonLines):
    """Refuses the connection."""

    def open(self, known: str | None, name: str, settings: Mapping[str, Any]) -> str:
        raise ConnectionError("connection refused")


class Breaking(JsonLines):
    """Fails at the third point, and takes the next ones again."""

    count = 0

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self.count += 1
        if self.count == 3:
            raise ConnectionError("connection\nlost")
        super().scalars(values, step)


class Hanging(JsonLines):
    """Never returns from the second point."""

    count = 0

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self.count += 1
        while self.count == 2:
            time.sleep(60)
        super().scalars(values, step)


class Slow(JsonLines):
    """Takes a while for each point."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        time.sleep(0.1)
        super().scalars(values, step)


class Deadly(JsonLines):
    """Kills the process when it writes certain lines, either before or right after that."""

    def __init__(self, run_dir: Path, before: Sequence[int], after: Sequence[int]) -> None:
        super().__init__(run_dir)
        self.before, self.after = before, after

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        time.sleep(0.02)  # checkpoints are ahead of it
        self.die_at(self.before, values, step)
        super().scalars(values, step)
        self.die_at(self.after, values, step)

    def die_at(self, steps: Sequence[int], values: Mapping[str, float], step: int) -> None:
        marker = self.run_dir / f"died-{step}"
        if step in steps and "train/loss" in values and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def read(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
