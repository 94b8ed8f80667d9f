"""Each run that is given a GPU sees no other. No GPU is needed: torch on the CPU ignores the variable."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from omegaconf import DictConfig

from microstep.sweep.launchers.gpus import LOCKS, claim_gpus
from microstep.sweep.launchers.worker import Worker
from microstep.utils.world import list_gpus
from tests.config.test_names import within

VISIBLE = "CUDA_VISIBLE_DEVICES"
FORK = multiprocessing.get_context("fork")


pytestmark = pytest.mark.usefixtures("kept_handlers")


def visible(config: DictConfig | None = None) -> str:
    return os.environ.get(VISIBLE, "all")


def hold(gpus: list[str], sweep: Path, end: Connection) -> None:
    claim_gpus(gpus, sweep)
    end.send(visible())
    end.recv()


def test_more_runs_than_gpus_share_them_evenly(tmp_path: Path) -> None:
    """Five runs on two GPUs are three and two; a new run takes the place of one that was killed."""
    pipes = [FORK.Pipe() for _ in range(6)]
    runs = [FORK.Process(target=hold, args=(["a", "b"], tmp_path, far)) for _, far in pipes]
    found = []
    with within(20):
        for run, (near, _) in zip(runs[:5], pipes, strict=False):
            run.start()
            found.append(near.recv())
        runs[3].kill()
        runs[3].join()
        runs[5].start()
        assert Counter(found) == {"a": 3, "b": 2}
        assert pipes[5][0].recv() == found[3]
    for run in runs:
        run.kill()
        run.join()


@pytest.mark.parametrize(("node", "seen"), [({"processes": 2}, "7,8"), ({"processes": 2, "run_on": 1}, "7")])
def test_a_run_in_several_processes_is_given_as_many_gpus(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, node: dict[str, int], seen: str
) -> None:
    """It gets one for each process that it starts, not for those that it is planned for."""
    monkeypatch.setenv(VISIBLE, "7,8,9")
    config = DictConfig({"device": "auto", "strategy": node})
    assert Worker(visible, tmp_path, list_gpus())(config).error == seen


@pytest.mark.parametrize(
    ("device", "seen"), [("auto", "7"), ("cuda", "7"), ("cuda:1", "7,8"), ("cpu", "7,8"), ("mps", "7,8")]
)
def test_only_a_run_that_may_choose_its_gpu_is_given_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device: str, seen: str
) -> None:
    """A run on the CPU takes none from others, and a typed index counts among all GPUs."""
    monkeypatch.setenv(VISIBLE, "7,8")
    assert Worker(visible, tmp_path, list_gpus())(DictConfig({"device": device, "strategy": {}})).error == seen
    assert (tmp_path / LOCKS).exists() == (seen == "7")


def test_other_launchers_deal_their_own_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A worker without a list changes nothing."""
    monkeypatch.setenv(VISIBLE, "7,8")
    assert Worker(visible, tmp_path)(DictConfig({"device": "cuda", "strategy": {}})).error == "7,8"


def test_a_claim_that_fails_is_the_error_of_the_run(tmp_path: Path) -> None:
    """It is one line, and no traceback."""
    (tmp_path / LOCKS).write_text("")
    error = Worker(visible, tmp_path, ["0"])(DictConfig({"device": "cuda", "strategy": {}})).error
    assert error is not None and "Not a directory" in error and "\n" not in error


@pytest.mark.parametrize(
    ("listed", "gpus"), [("0,1", ["0", "1"]), ("", []), ("-1", []), ("2, GPU-5f,-1,3", ["2", "GPU-5f"])]
)
def test_the_gpus_are_those_that_cuda_would_see(monkeypatch: pytest.MonkeyPatch, listed: str, gpus: list[str]) -> None:
    """CUDA ignores what follows the first index that it does not have."""
    monkeypatch.setenv(VISIBLE, listed)
    assert list_gpus() == gpus


def test_all_gpus_of_the_machine_are_listed_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver makes a file for each."""
    monkeypatch.delenv(VISIBLE, raising=False)
    assert list_gpus() == [str(number) for number in range(len([*Path("/dev").glob("nvidia[0-9]*")]))]
