"""The store in which the processes of a run find each other, report failures and show that they are alive."""

import json
from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import timedelta
from threading import Event, Thread
from time import monotonic, sleep
from typing import Any

from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]

from microstep.errors import ConfigError
from microstep.utils.signals import raise_pending_signal
from microstep.utils.world import World

POLL_SECONDS = 0.05
BEAT_SECONDS = 0.5  #: seconds between two signs of life
SILENT_SECONDS = 3.0  #: seconds without one after which a process counts as dead, if its connection broke
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
        self.closed, self.beats = Event(), dict[int, tuple[int, float]]()  #: number of beats, and when it changed
        self.thread = Thread(target=self.beat, daemon=True)
        self.thread.start()

    def close(self) -> None:
        """Show no more signs of life. A thread that is in the store when the interpreter ends would abort it."""
        self.closed.set()
        self.thread.join()

    def set(self, name: str, value: Any) -> None:
        """Set a value, unless the store is gone."""
        with suppress(DistError):
            self.store.set(name, json.dumps(value))

    def get(self, name: str) -> Any:
        """Return a value, or None if there is none yet. Raise DistError if the store is gone."""
        return json.loads(self.store.get(name)) if self.store.check([name]) else None

    def wait(self, names: Collection[str], check: Callable[[], None] = lambda: None) -> list[Any]:
        """Return values as soon as all are there. Until then, `check` is called, which may raise an error."""
        while not self.store.check(list(names)):
            raise_pending_signal()
            check()
            sleep(POLL_SECONDS)
        return [self.get(name) for name in names]

    def beat(self) -> None:
        """Show signs of life until this object is closed or the store is gone."""
        with suppress(DistError):
            store = self.store.clone()
            while not self.closed.wait(BEAT_SECONDS):
                store.add(f"alive/{self.world.rank}", 1)
            return
        self.lost()

    def find_silent(self, seconds: float = SILENT_SECONDS) -> list[int]:
        """Return the ranks that have shown signs of life, but none for some seconds. Call it repeatedly."""
        for rank in range(self.world.size):
            count, now = self.store.add(f"alive/{rank}", 0), monotonic()
            if count != self.beats.get(rank, (0, now))[0]:
                self.beats[rank] = count, now
        return [rank for rank, (_, changed) in self.beats.items() if now - changed > seconds]
