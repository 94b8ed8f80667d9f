"""What is seen and kept of a run: bars, the terminal, metrics.csv, TensorBoard, run.json."""

from microstep.logger.console import Console, metrics_row, with_report
from microstep.logger.files import cut_back, logs_of
from microstep.logger.logbook import Logbook
from microstep.logger.metrics_csv import MetricsCsv
from microstep.logger.run_json import RunRecordLogger
from microstep.logger.tensorboard import TensorBoard

__all__ = [
    "Console",
    "Logbook",
    "MetricsCsv",
    "RunRecordLogger",
    "TensorBoard",
    "cut_back",
    "logs_of",
    "metrics_row",
    "with_report",
]
