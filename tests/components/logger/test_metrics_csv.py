"""Tests of metrics.csv."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from microstep.components.logger.metrics_csv import MetricsCsv
from microstep.errors import StorageError
from microstep.types.events import EpochReport


def epoch(number: int, val: dict[str, float]) -> EpochReport:
    """Return an epoch's report with numbers that need all their digits."""
    return EpochReport(
        epoch=number,
        epochs=3,
        optimizer_steps=23 * number,
        samples_seen=1437 * number,
        skipped_steps=0,
        train={"loss": 1 / (3 * number), "accuracy": 0.5},
        val=val,
        lr=0.1 / 3,
        samples_per_second=1234.5678,
        seconds=1.23456,
        best=True,
    )


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_a_row_an_epoch_as_it_ends(tmp_path):
    """The row of an epoch is on disk when the epoch ends, so a killed run keeps it."""
    log = MetricsCsv(tmp_path / "metrics.csv")
    for number in (1, 2, 3):
        log.epoch(epoch(number, {"loss": 0.5, "accuracy": 2 / 3}))
        found = rows(tmp_path / "metrics.csv")
        assert [row["epoch"] for row in found] == [str(n) for n in range(1, number + 1)]
        assert None not in found[-1].values()


def test_numbers_keep_all_their_digits(tmp_path):
    """Values read back are equal to the last bit, except for the rounded speed and time."""
    MetricsCsv(tmp_path / "metrics.csv").epoch(epoch(1, {"loss": 0.1 + 0.2, "accuracy": 2 / 3}))
    (row,) = rows(tmp_path / "metrics.csv")
    assert (float(row["train_loss"]), float(row["lr"])) == (1 / 3, 0.1 / 3)
    assert (float(row["val_loss"]), float(row["val_accuracy"])) == (0.1 + 0.2, 2 / 3)
    assert (row["samples_per_second"], row["seconds"]) == ("1234.6", "1.235")


def test_a_file_keeps_its_columns(tmp_path):
    """A run of an older version, which computed other metrics, is resumed with the columns that the file has."""
    for val in ({"loss": 0.5, "old": 1.0}, {"loss": 0.25, "new": 2.0}):
        MetricsCsv(tmp_path / "metrics.csv").epoch(epoch(1, val))
    first, second = rows(tmp_path / "metrics.csv")
    assert list(first) == list(second)
    assert (second["val_loss"], second["val_old"], second["seconds"]) == ("0.25", "", "1.235")


def test_the_header_names_the_tasks_own_metrics(tmp_path):
    """The columns are named after the metrics of any task."""
    MetricsCsv(tmp_path / "metrics.csv").epoch(epoch(1, {"loss": 0.5, "mean absolute error, in °C": 3.0}))
    header = ["epoch", "optimizer_steps", "train_loss", "val_loss", "val_mean absolute error, in °C"]
    assert list(rows(tmp_path / "metrics.csv")[0]) == [*header, "lr", "samples_per_second", "seconds"]


def test_a_second_logger_goes_on_in_the_same_file(tmp_path):
    """A resumed run appends rows. There is one header, and earlier rows do not change."""
    for number in (1, 2):
        MetricsCsv(tmp_path / "metrics.csv").epoch(epoch(number, {"loss": 0.5}))
    assert [row["epoch"] for row in rows(tmp_path / "metrics.csv")] == ["1", "2"]
    assert (tmp_path / "metrics.csv").read_text().count("epoch") == 1


def test_a_file_that_can_not_be_written_is_a_failure_of_storage(tmp_path):
    """A write error exits with 4 and names the file."""
    file = tmp_path / "gone" / "metrics.csv"
    with pytest.raises(StorageError) as caught:
        MetricsCsv(file).epoch(epoch(1, {"loss": 0.5}))
    assert caught.value.exit_code == 4
    assert str(caught.value).startswith(f"{file}: ")


@pytest.mark.parametrize("metric", ["loss", "accuracy", "f1_macro", "f1_weighted"])
def test_a_real_runs_rows_are_tensorboards_events(trained, metric):
    """The values of each epoch agree to the precision of TensorBoard's fp32."""
    events = EventAccumulator(str(trained)).Reload().Scalars(f"val/{metric}")
    found = rows(trained / "metrics.csv")
    assert [event.step for event in events] == [int(row["epoch"]) for row in found]
    assert [event.value for event in events] == [np.float32(row[f"val_{metric}"]) for row in found]


def test_the_rate_is_that_of_the_epochs_last_step(trained):
    """The row has the learning rate of the epoch's last step, not that of the next step."""
    last = [float(row["lr"]) for row in rows(trained / "metrics.csv")]
    done = [(23 * epoch - 1 - 6) / (69 - 6) for epoch in (1, 2, 3)]
    assert last == pytest.approx([0.03 * 0.5 * (1 + np.cos(np.pi * share)) for share in done], rel=1e-9)
