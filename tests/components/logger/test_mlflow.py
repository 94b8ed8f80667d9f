"""Tests of MLflow with a database. They need the extra."""

from __future__ import annotations

from pathlib import Path

import pytest

from microstep.components.logger.sinks import MLflow
from tests.components.logger.test_remote import train

pytest.importorskip("mlflow")
pytest.importorskip("sqlalchemy")
pytestmark = pytest.mark.filterwarnings("ignore")  # its libraries' own


@pytest.fixture
def sink(tmp_path: Path) -> MLflow:
    return MLflow(tmp_path, f"sqlite:///{tmp_path}/new/mlflow.db", "digits")


def test_a_run_is_in_the_database_with_its_files(tmp_path: Path) -> None:
    """Settings, every point once, reports and weights; the run is finished."""
    address = f"sqlite:///{tmp_path}/mlflow.db"
    train(tmp_path / "run", "logger=mlflow", f"logger.mlflow.tracking_uri={address}")
    client = MLflow(tmp_path, address, "").tracking.MlflowClient(address)
    (run,) = client.search_runs([client.get_experiment_by_name("microstep").experiment_id])
    assert (run.info.status, run.info.run_name, run.data.params["seed"]) == ("FINISHED", "run", "0")
    assert [point.step for point in client.get_metric_history(run.info.run_id, "val/accuracy")] == [1, 2, 3]
    names = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert names == {"model.safetensors", "reports"}
    assert (tmp_path / "mlartifacts" / run.info.run_id / "artifacts" / "reports" / "test").is_dir()


def test_a_point_that_was_sent_and_not_recorded_is_sent_once(sink: MLflow) -> None:
    """MLflow itself would keep both."""
    known = sink.open(None, "run", {"a": 1})
    sink.scalars({"train/loss": 1.0}, 1)
    assert sink.open(known, "run", {}) == known
    for step in (1, 2):
        sink.scalars({"train/loss": 1.0}, step)
    assert [point.step for point in sink.client.get_metric_history(known, "train/loss")] == [1, 2]


def test_any_metric_of_a_task_has_a_name(sink: MLflow) -> None:
    """Characters that MLflow refuses are replaced; a value that is no number is kept."""
    known = sink.open(None, "run", {})
    sink.scalars({"val/mean error, in °C": float("nan")}, 1)
    assert list(sink.client.get_run(known).data.metrics) == ["val/mean error_ in _C"]


def test_a_run_that_fails_says_so(sink: MLflow) -> None:
    """The status is FAILED."""
    known = sink.open(None, "run", {})
    sink.end(failed=True)
    assert sink.client.get_run(known).info.status == "FAILED"
