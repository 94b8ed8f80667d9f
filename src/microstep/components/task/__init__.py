"""Tasks: what a model is for."""

from microstep.components.task.classification.task import Classification

__all__ = ["Classification"]
