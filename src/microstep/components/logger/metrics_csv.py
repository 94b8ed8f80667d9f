"""metrics.csv: one row per epoch."""

from pathlib import Path

from microstep.types.events import EpochReport, Results, WindowReport
from microstep.utils.files import append_bytes
from microstep.utils.tables import csv_bytes


class MetricsCsv:
    """Appends a row after each epoch. The columns `val_…` are the metrics of the task."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def window(self, report: WindowReport) -> None: ...

    def epoch(self, report: EpochReport) -> None:
        row = {
            "epoch": report.epoch,
            "optimizer_steps": report.optimizer_steps,
            "train_loss": report.train["loss"],
            **{f"val_{name}": value for name, value in report.val.items()},
            "lr": report.lr,
            "samples_per_second": round(report.samples_per_second, 1),
            "seconds": round(report.seconds, 3),
        }
        has_header = self.file.exists() and self.file.stat().st_size
        append_bytes(self.file, csv_bytes([row.values()] if has_header else [row.keys(), row.values()]))

    def finish(self, results: Results) -> None: ...

    def close(self, error: BaseException | None) -> None: ...
