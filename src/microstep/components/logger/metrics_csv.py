"""metrics.csv: one row per epoch."""

import csv
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
        lines = self.file.read_text("utf-8").splitlines() if self.file.exists() else []
        columns = next(csv.reader(lines), None)  # a resumed run keeps those of the version that began it
        values = [row.get(name, "") for name in columns or row]
        append_bytes(self.file, csv_bytes([values] if columns else [row.keys(), values]))

    def finish(self, results: Results) -> None: ...

    def close(self, error: BaseException | None) -> None: ...
