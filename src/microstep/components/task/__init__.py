"""Tasks: loss, metrics and report."""

from microstep.components.task.classification.task import Classification
from microstep.components.task.losses import bce, focal

__all__ = ["Classification", "bce", "focal"]
