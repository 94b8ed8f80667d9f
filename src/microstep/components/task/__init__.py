"""Tasks: loss, metrics and report."""

from microstep.components.task.classification.task import Classification
from microstep.components.task.losses import bce, focal
from microstep.components.task.multilabel import MultiLabel
from microstep.components.task.regression import Regression

__all__ = ["Classification", "MultiLabel", "Regression", "bce", "focal"]
