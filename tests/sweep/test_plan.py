"""The plan of a sweep, made from the files of its earlier runs."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from microstep.config.compose import compose
from microstep.sweep.definition import Job, Sweep, SweepPlan
from microstep.sweep.planning import plan_sweep
from microstep.training import provenance as identity
from tests.conftest import fit

LEAST = ["model=mlp", "epochs=1", "threads=1", "progress=false"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    directory = tmp_path_factory.mktemp("plan") / "run"
    fit(LEAST, directory)
    return directory


def plan(directory: Path, *words: str, redo: bool = False, name: str = "job") -> SweepPlan:
    """Return the plan of a sweep of one job."""
    job = Job(0, name, words, compose([*LEAST, *words]))
    return plan_sweep(Sweep(directory, (job,), "", redo, False))


def left(directory: Path, **facts: Any) -> None:
    """Change values of a run.json."""
    file = directory / "job" / "run.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **facts}))


@pytest.fixture
def sweep(run: Path, tmp_path: Path) -> Path:
    shutil.copytree(run, tmp_path / "job")
    return tmp_path


def test_a_finished_run_is_finished(sweep: Path) -> None:
    """A run is identified by its experiment hash, without its name and the keys that can't change a result."""
    assert plan(sweep).finished == {"job": "job"}
    assert plan(sweep, "num_workers=3", "sweep=s", "log_every_steps=1").finished == {"job": "job"}
    (sweep / "job").rename(sweep / "under another name")
    assert plan(sweep).finished == {"job": "under another name"}
    (sweep / "deep").mkdir()
    (sweep / "under another name").rename(sweep / "deep" / "job")
    assert plan(sweep, name="deep/job").finished == {"deep/job": "deep/job"}


def test_another_experiment_is_to_do(sweep: Path) -> None:
    """A job of another experiment is run."""
    (sweep / "job").rename(sweep / "seed-0")
    assert len(plan(sweep, "seed=1").jobs_to_run) == 1


def test_what_has_changed_is_named(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If config, data or source have changed, the run is stale, and its files are not changed."""
    before = {path: path.read_bytes() for path in sweep.rglob("*") if path.is_file()}
    assert plan(sweep, "optimizer.lr=0.5").stale == {"job": "config"}
    assert plan(sweep, "dataset.split_seed=1").stale == {"job": "data"}
    monkeypatch.setattr(identity, "package_hash", lambda package: "edited")
    assert plan(sweep).stale == {"job": "source"}
    assert {path: path.read_bytes() for path in sweep.rglob("*") if path.is_file()} == before


def test_on_request_a_stale_run_starts_afresh(sweep: Path) -> None:
    """Its directory is emptied except for the log; runs that are not stale are not changed."""
    assert plan(sweep, redo=True).finished
    assert plan(sweep, "optimizer.lr=0.5", redo=True).jobs_to_run
    assert {path.name for path in (sweep / "job").iterdir()} <= {"train.log", ".lock", ".lock.holder"}


@pytest.mark.parametrize("status", ["interrupted", "running"])
def test_an_interrupted_run_goes_on(sweep: Path, status: str) -> None:
    """A run that was interrupted or killed is resumed from its files. If its experiment is another one, it is stale."""
    left(sweep, status=status)
    assert plan(sweep, "optimizer.lr=0.5").stale == {"job": "config"}
    assert plan(sweep).jobs_to_run
    assert (sweep / "job" / "checkpoints" / "manifest.json").exists()


def test_what_failed_or_never_got_anywhere_starts_afresh(sweep: Path) -> None:
    """A failed run starts from the beginning, and so does one that died before its first checkpoint."""
    left(sweep, status="failed")
    assert plan(sweep).jobs_to_run
    assert not (sweep / "job" / "checkpoints").exists()
    (sweep / "job" / "run.json").write_text('{"status": "running"}')
    assert plan(sweep).jobs_to_run
    assert not (sweep / "job" / "run.json").exists()


def test_a_damaged_run_json_costs_no_result(sweep: Path) -> None:
    """A run with a checkpoint and a damaged run.json is stale."""
    (sweep / "job" / "run.json").write_text("{")
    assert plan(sweep).stale == {"job": "data"}


def test_data_that_cannot_be_had_make_nothing_finished(sweep: Path) -> None:
    """Without its data, no run counts as finished; the job itself reports the error."""
    assert plan(sweep, "dataset=fashion_mnist", f"dataset.root={sweep}").stale == {"job": "data"}


def broken(device: torch.device) -> None:
    """A user's dataset that raises an error."""
    raise RuntimeError("planted")


def test_a_data_set_that_breaks_stops_no_sweep(sweep: Path) -> None:
    """If the constructor raises any error, the job itself reports it, and the other jobs run."""
    left(sweep, status="failed")
    job = Job(0, "job", (), compose(LEAST))
    job.config.dataset = {"_target_": "tests.sweep.test_plan.broken"}
    assert plan_sweep(Sweep(sweep, (job,), "", False, False)).jobs_to_run == (job,)


def test_a_file_of_ones_own_that_is_edited_makes_its_runs_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model's module and its package are hashed as source; installed packages are not."""
    monkeypatch.syspath_prepend(str(tmp_path))
    config = compose(LEAST)
    config.model._target_ = "planted_model.net"
    seen = []
    for source in ("x = 1", "x = 2"):
        (tmp_path / "planted_model.py").write_text(source)
        identity.package_hash.cache_clear()
        seen.append(identity.source_hash(config))
    assert seen[0] != seen[1]
    assert identity.package_hash("torch") == "torch"
