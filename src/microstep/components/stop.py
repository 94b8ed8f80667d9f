"""Decides after each validation whether a run ends before its last epoch."""

from math import inf
from typing import Any

__all__ = ["At", "Budget", "Never", "Patience"]


class Never:
    """Trains all epochs."""

    def after(self, epoch: int, value: float, seconds: float) -> str | None:
        return None


class Patience:
    """Stops if the monitored metric has not improved for some epochs (Prechelt, 1998: early stopping).

    Args:
        epochs: epochs in a row without an improvement.
        min_delta: an improvement exceeds the best value so far by more than this.
    """

    def __init__(self, epochs: int = 5, min_delta: float = 0.0) -> None:
        self.epochs, self.min_delta = epochs, min_delta
        self.best, self.waited = -inf, 0

    def after(self, epoch: int, value: float, seconds: float) -> str | None:
        improved = value > self.best + self.min_delta  # a NaN never does
        self.best, self.waited = (value, 0) if improved else (self.best, self.waited + 1)
        return f"patience of {self.epochs} epochs" if self.waited >= self.epochs else None

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.waited = state["best"], state["waited"]


class Budget:
    """Stops after an epoch if minutes of training and validation are over. `At` that epoch repeats the result."""

    def __init__(self, minutes: float) -> None:
        self.minutes = minutes

    def after(self, epoch: int, value: float, seconds: float) -> str | None:
        return f"budget of {self.minutes:g} minutes" if seconds >= 60 * self.minutes else None


class At:
    """Stops after an epoch, while the learning rate follows the schedule for all epochs."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def after(self, epoch: int, value: float, seconds: float) -> str | None:
        return f"stop.epoch={self.epoch}" if epoch >= self.epoch else None
