"""Loggers: console, metrics.csv, TensorBoard."""

from microstep.components.logger.console import Console
from microstep.components.logger.metrics_csv import MetricsCsv
from microstep.components.logger.tensorboard import TensorBoard

__all__ = ["Console", "MetricsCsv", "TensorBoard"]
