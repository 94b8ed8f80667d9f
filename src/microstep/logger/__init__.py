"""What is seen and kept of a run: bars, the terminal, metrics.csv, TensorBoard, run.json."""

from microstep.logger.bars import Bars
from microstep.logger.console import Console, metrics_row, say, show_notices, with_report
from microstep.logger.files import cut_back, logs_of
from microstep.logger.logbook import Logbook
from microstep.logger.metrics_csv import MetricsCsv
from microstep.logger.records import EpochReport, Logger, Results, SplitResult, WindowReport
from microstep.logger.run_json import RunRecordLogger
from microstep.logger.settings import settings_of
from microstep.logger.tensorboard import TensorBoard
from microstep.terminal import emit

__all__ = [
    "Bars",
    "Console",
    "EpochReport",
    "Logbook",
    "Logger",
    "MetricsCsv",
    "Results",
    "RunRecordLogger",
    "SplitResult",
    "TensorBoard",
    "WindowReport",
    "cut_back",
    "emit",
    "logs_of",
    "metrics_row",
    "say",
    "settings_of",
    "show_notices",
    "with_report",
]
