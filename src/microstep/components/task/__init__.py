"""Tasks: loss, metrics and report."""

from microstep.components.task.classification.task import Classification

__all__ = ["Classification"]
