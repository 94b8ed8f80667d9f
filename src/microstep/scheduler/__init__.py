"""Learning rate schedules, counted in optimizer steps."""

from microstep.scheduler.schedules import constant, cosine, onecycle

__all__ = ["constant", "cosine", "onecycle"]
