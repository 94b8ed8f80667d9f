"""How fast a run is, and how long it waits for data."""

from __future__ import annotations

from time import perf_counter

from microstep.loaders import Clock


class Pace:
    """Stopwatches: since the last lap, since the epoch began, since the run began."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.run_began: float | None = None
        self.epoch_began = self.lap_began = 0.0
        self.samples_seen = self.epoch_samples = 0
        self.waited = 0.0
        self.samples_per_second = 0.0  #: of the last epoch's training

    def start_run(self) -> None:
        """Begin to count the run's seconds."""
        self.run_began = perf_counter()

    def start_epoch(self, samples_seen: int) -> None:
        """An epoch's training begins, or goes on: what came before is in no lap."""
        self.epoch_began = self.lap_began = perf_counter()
        self.waited = self.clock.waited
        self.epoch_samples = self.samples_seen = samples_seen

    def lap(self, samples_seen: int) -> dict[str, float]:
        """Return samples a second and the share of time waited for data since the last lap."""
        now, samples = perf_counter(), samples_seen - self.samples_seen
        seconds, waited = now - self.lap_began, self.clock.waited - self.waited
        self.lap_began, self.waited, self.samples_seen = now, self.clock.waited, samples_seen
        return {"samples_per_second": samples / seconds, "data_wait_fraction": waited / seconds}

    def end_training(self, samples_seen: int) -> None:
        """An epoch's training is over: what follows is validation."""
        self.samples_per_second = (samples_seen - self.epoch_samples) / self.epoch_seconds()

    def epoch_seconds(self) -> float:
        """Return the seconds since the epoch began."""
        return perf_counter() - self.epoch_began

    def total_seconds(self) -> float:
        """Return the seconds since `start_run`; 0 before it."""
        return 0.0 if self.run_began is None else perf_counter() - self.run_began
