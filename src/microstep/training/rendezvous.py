"""The store in which the processes of a run find each other, report failures and show that they are alive."""

import json
from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import timedelta
from threading import Thread
from time import monotonic, sleep
from typing import Any

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from microstep.errors import ConfigError
from microstep.utils.signals import raise_pending_signal
from microstep.utils.world import World

POLL_SECONDS = 0.05
BEAT_SECONDS = 0.5  #: seconds between two signs of life
SILENT_SECONDS = 3.0  #: seconds without one after which a process counts as dead
START_SECONDS = 300.0  #: seconds in which a process may reach the store


class Rendezvous:
    """Values of JSON by name, that all processes can read. One process holds them; if it dies, an error is raised."""

    def __init__(self, world: World, lost: Callable[[], None] = lambda: None) -> None:
        self.lost = lost  #: called if the store is gone
        self.world, timeout = world, timedelta(seconds=START_SECONDS)
        try:
            self.store = TCPStore(world.address, world.port, None, world.is_host, timeout, wait_for_workers=False)
        except RuntimeError as error:
            reason = f"the processes can't meet at {world.address}:{world.port}: {str(error).splitlines()[0]}"
            raise ConfigError("strategy=ddp", reason, "choose another MASTER_ADDR or MASTER_PORT") from None
        self.jobs = 0  #: runs so far
        Thread(target=self.beat, daemon=True).start()

    def set(self, name: str, value: Any) -> None:
        self.store.set(name, json.dumps(value))

    def get(self, name: str) -> Any:
        """Return a value, or None if there is none yet."""
        return json.loads(self.store.get(name)) if self.store.check([name]) else None

    def wait(self, names: Collection[str], check: Callable[[], None] = lambda: None) -> list[Any]:
        """Return values as soon as all are there. Until then, `check` is called, which may raise an error."""
        while not self.store.check(list(names)):
            raise_pending_signal()
            check()
            sleep(POLL_SECONDS)
        return [self.get(name) for name in names]

    def beat(self) -> None:
        """Show signs of life until the store is gone."""
        with suppress(RuntimeError):
            store = self.store.clone()
            while True:
                store.add(f"alive/{self.world.rank}", 1)
                sleep(BEAT_SECONDS)
        self.lost()

    def find_silent(self) -> list[int]:
        """Return the ranks that show no sign of life for some seconds."""
        before, start = self.count_beats(), monotonic()
        while monotonic() < start + SILENT_SECONDS:
            sleep(BEAT_SECONDS)
        return [rank for rank, count in enumerate(self.count_beats()) if count == before[rank]]

    def count_beats(self) -> list[int]:
        return [self.store.add(f"alive/{rank}", 0) for rank in range(self.world.size)]
