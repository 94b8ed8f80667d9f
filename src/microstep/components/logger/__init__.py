"""Loggers: console, metrics.csv, TensorBoard."""

from microstep.components.logger.console import Console, format_metrics, format_report
from microstep.components.logger.metrics_csv import MetricsCsv
from microstep.components.logger.tensorboard import TensorBoard

__all__ = [
    "Console",
    "MetricsCsv",
    "TensorBoard",
    "format_metrics",
    "format_report",
]
