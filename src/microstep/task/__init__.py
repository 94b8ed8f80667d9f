"""Tasks: what a model is for."""

from microstep.task.classification import Classification

__all__ = ["Classification"]
