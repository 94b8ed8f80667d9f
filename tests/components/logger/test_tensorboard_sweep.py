"""Tests of TensorBoard's server and page with the runs of a sweep."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import PROGRAM, Page, browsing

ALL = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]
SWEEP = [f"max_grad_norm-{norm}_model-{model}" for norm in ("0.5", "null") for model in ("mlp", "small_cnn")]
FAILED = "failed"  #: a run whose loss is no number from its second step on
RUNS = [FAILED, *(f"sweeps/study/{name}" for name in SWEEP)]
REPORTED = ("confusion_matrix", "reliability", "worst_mistakes")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory, zygote) -> Path:
    """Return a directory with a sweep of four runs and a failed run."""
    home = tmp_path_factory.mktemp("sweep")
    words = ("max_grad_norm=null,0.5", "model=mlp,small_cnn", "epochs=2", "sweep=study", "progress=false")
    assert zygote.run("train.py", "-m", *words, cwd=home) == 0
    wild = ("model=mlp", "optimizer.lr=1e30", "epochs=2", "progress=false", f"hydra.run.dir=outputs/{FAILED}")
    assert zygote.run("train.py", *wild, cwd=home) == 3
    return home / "outputs"


@pytest.fixture(scope="module")
def server(outputs) -> Iterator[str]:
    """Return the address of `tensorboard --logdir outputs` after it has loaded all runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("tensorboard")
    command = [program, "--logdir", outputs, "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(address)
        yield address
    finally:
        process.terminate()
        process.wait()


def wait_for(address: str) -> None:
    """Wait until every run is read to its end."""
    for _ in range(200):
        try:
            ended = [row for row in groups(address) if row["sessions"][0].get("status") in ALL[1:3]]
            if len(ended) == len(RUNS):
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise AssertionError("TensorBoard has not read the runs")


def asked(address: str, path: str, **question: Any) -> Any:
    """Return a plugin's response."""
    data = json.dumps(question).encode() if question else None
    request = urllib.request.Request(f"{address}/data/{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as reply:
        return json.load(reply)


def groups(address: str, **column: Any) -> list[dict[str, Any]]:
    """Return the rows of the hparams tab, sorted by a column, if any."""
    question = {"allowedStatuses": ALL, "colParams": [column] if column else [], "startIndex": 0, "sliceSize": 100}
    return list(asked(address, "plugin/hparams/session_groups", **question)["sessionGroups"])


def test_a_run_is_one_line_by_its_directorys_name(server):
    """The server lists exactly the run directories."""
    assert sorted(asked(server, "runs")) == RUNS


def test_the_columns_that_differ_come_first(server):
    """The columns shown first are those in which the runs differ."""
    columns = asked(server, "plugin/hparams/experiment", experimentName="")["hparamInfos"]
    differing = [column["name"] for column in columns if column.get("differs")]
    assert differing[:2] == ["max_grad_norm", "model"]
    assert [column["name"] for column in columns[: len(differing)]] == differing
    assert not {"accum", "seed", "precision", "batch_size"} & set(differing)


def test_columns_are_typed(server):
    """Columns are numbers, booleans or texts. A nullable key is text in every run."""
    columns = asked(server, "plugin/hparams/experiment", experimentName="")["hparamInfos"]
    types = {column["name"]: column["type"].removeprefix("DATA_TYPE_") for column in columns}
    assert [types[key] for key in ("accum", "optimizer.lr", "seed")] == ["FLOAT64"] * 3
    assert [types[key] for key in ("deterministic", "model", "max_grad_norm")] == ["BOOL", "STRING", "STRING"]
    assert {group["hparams"]["max_grad_norm"] for group in groups(server)} == {"null", "0.5"}
    assert {group["hparams"]["accum"] for group in groups(server)} == {1}


@pytest.mark.parametrize("key", ["max_grad_norm", "model", "optimizer.lr", "model.hidden", "deterministic"])
def test_any_column_can_be_sorted(server, key):
    """A column has one type even if a key is null or missing in some runs."""
    assert len(groups(server, hparam=key, order="ORDER_ASC", includeInResult=True)) == len(RUNS)


def test_metrics_are_those_of_the_best_checkpoint(server, outputs):
    """A run's row has the validation and test metrics of run.json."""
    for row in groups(server):
        if (name := row["name"]) == FAILED:
            continue
        record = json.loads((outputs / name / "run.json").read_text())["metrics"]
        values = {metric["name"]["tag"]: metric["value"] for metric in row["metricValues"]}
        for metric, value in record["test"].items():
            assert values[f"test/{metric}"] == pytest.approx(value, rel=1e-6)
        for metric in ("loss", "accuracy"):
            assert values[f"best_val/{metric}"] == pytest.approx(record["val"][metric], rel=1e-6)


def test_a_run_that_failed_has_its_row(server):
    """The failed run has its hparams and the status failed, the others the status success."""
    found = {row["name"]: row["sessions"][0]["status"] for row in groups(server)}
    assert found == {name: "STATUS_FAILURE" if name == FAILED else "STATUS_SUCCESS" for name in RUNS}
    (failed,) = (row for row in groups(server) if row["name"] == FAILED)
    assert failed["hparams"]["optimizer.lr"] == 1e30


def test_the_layout_puts_training_and_validation_on_one_chart(server):
    """TensorBoard reads one layout for all runs, with a chart per metric of two existing tags."""
    (category,) = asked(server, "plugin/custom_scalars/layout")["category"]
    assert [chart["title"] for chart in category["chart"]] == ["loss", "accuracy", "f1_macro", "f1_weighted"]
    for pattern in category["chart"][0]["multiline"]["tag"]:
        words = urllib.parse.urlencode({"tag": pattern, "run": RUNS[1]})
        (events,) = asked(server, f"plugin/custom_scalars/scalars?{words}")["tag_to_events"].values()
        assert [step for _, step, _ in events] == [1, 2]


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """Return a page of a real browser."""
    if PROGRAM is None:
        pytest.skip("there is no Chromium")
    with browsing() as opened:
        yield opened


def test_a_browser_shows_the_runs_by_name(page, server):
    """The scalars tab has the full name of each run and a chart for each visible tag."""
    page.open(f"{server}/?tab=scalars#scalars")
    page.wait('all("vz-line-chart2").length > 3')
    text = page.text()
    assert [run for run in RUNS if run not in text] == []
    assert "best_val/accuracy" in text


def test_a_browser_shows_the_table(page, server):
    """The hparams tab has a row per run with the differing settings, then validation and test accuracy."""
    page.open(f"{server}/?tab=hparams#hparams", 2000)
    cells = 'all("vaadin-grid-cell-content").map(cell => cell.innerText.trim())'
    expected = ["max_grad_norm", "model", "best_val/accuracy", "test/accuracy", "mlp", "small_cnn", "null"]
    page.wait(f"{json.dumps(expected)}.every(text => {cells}.includes(text))")  # five metrics at first
    page.wait(f'{cells}.filter(text => text == "0.5").length == 2')


def test_a_browser_shows_training_and_validation_on_one_chart(page, server):
    """The custom scalars tab has two curves by epoch for each run."""
    page.open(f"{server}/?tab=custom#custom_scalars")
    page.wait('all("vz-line-chart2").length == 4')
    page.wait(
        f'all("tf-custom-scalar-multi-line-chart-card").every(c => c.shadowRoot.textContent.includes("({2 * 4})"))'
    )
    assert "training and validation, by epoch" in page.text()


def test_a_browser_shows_the_pictures(page, server):
    """The images tab shows the report's images in their size."""
    page.open(f"{server}/?tab=images#images")
    page.wait('all("img").filter(i => i.naturalWidth > 300).length >= 8')
    text = page.text()
    assert [name for name in REPORTED if f"test/{name}" not in text] == []


def test_no_page_complains(page):
    """No tab raises an error or misses a resource."""
    assert page.errors == []
