"""The plan of a sweep, made from the files of its earlier runs."""

import json
import os
import shutil
import signal
from importlib import invalidate_caches
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import open_dict

from microstep.config.compose import compose
from microstep.sweep.definition import Job, Sweep, SweepPlan
from microstep.sweep.planning import plan_sweep
from microstep.training import provenance as identity
from microstep.training import resume as resuming
from microstep.training.resume import resume
from microstep.training.source import find_imported_packages, find_packages
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


def fingerprint_of(directory: Path) -> str:
    return str(json.loads((directory / "run.json").read_text())["data"]["fingerprint"])


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


def test_a_finished_run_is_found_with_whatever_size_of_micro_batches(tmp_path: Path) -> None:
    """The size that accumulation=auto has found is part of the hash, and any size that it may find is looked for."""
    words = ["accumulation=auto", "effective_batch_size=64"]
    fit([*LEAST, *words], tmp_path / "job")
    digest = json.loads((tmp_path / "job" / "run.json").read_text())["experiment_hash"]
    smaller = identity.experiment_hash(compose([*LEAST, *words]), fingerprint_of(tmp_path / "job"), (None, 8))
    assert digest != smaller
    for found in (digest, smaller):
        left(tmp_path, experiment_hash=found)
        assert plan(tmp_path, *words).finished == {"job": "job"}


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


def test_a_run_that_is_killed_while_it_is_resumed_goes_on(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """run.json still identifies it, although its components are not built yet."""
    left(sweep, status="interrupted")
    monkeypatch.setattr(resuming, "build_components", lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
    pid = os.fork()
    if not pid:
        resume(sweep / "job")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
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


def test_a_run_that_failed_through_no_fault_of_its_own_goes_on(sweep: Path) -> None:
    """A run whose disk was full keeps its checkpoints; if its experiment is another one, it is stale."""
    left(sweep, status="failed", resumable=True)
    assert plan(sweep, "optimizer.lr=0.5").stale == {"job": "config"}
    assert plan(sweep).jobs_to_run
    assert (sweep / "job" / "checkpoints" / "manifest.json").exists()


@pytest.mark.parametrize("status", ["failed", "interrupted", "running"])
def test_without_an_intact_checkpoint_a_run_starts_afresh(sweep: Path, status: str) -> None:
    """A resume would be refused each time the sweep is repeated."""
    left(sweep, status=status, resumable=True)
    for file in (sweep / "job" / "checkpoints").glob("*.pt"):
        file.write_bytes(file.read_bytes()[:-1])
    assert plan(sweep).jobs_to_run
    assert not (sweep / "job" / "checkpoints").exists()


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


def test_every_form_of_an_import_is_found() -> None:
    """Relative imports are of the same package, which is hashed as a whole."""
    source = b"""from a.b import c
import d.e as f, g , h.i
try: import j
except: from k import (l,
    m)
def n():
    x = "import y"; import o # p
    from .q import r
    from . import s
important = t
"""
    assert find_imported_packages(source) == {"a", "d", "g", "h", "j", "k", "o"}
    assert find_imported_packages(b"import a\n)") == set()


LAYOUTS = {  # target, file to edit, other files
    "a module": ("planted_a.net", "planted_a.py", {}),
    "a module with a name of the standard library": ("lib2to3.net", "lib2to3.py", {}),
    "a package": (
        "planted_b.net",
        "planted_b/deep/helper.py",
        {"planted_b/__init__.py": "from planted_b.deep import helper"},
    ),
    "a package without __init__.py": ("planted_c.models.net", "planted_c/models.py", {}),
    "a folder of such a package": ("planted_d.models.net", "planted_d/deep/helper.py", {"planted_d/models.py": ""}),
    "a module that the module imports": (
        "planted_e.net",
        "helper_e.py",
        {"planted_e.py": "def net():\n    import helper_e"},
    ),
    "a module that this one imports": (
        *("planted_f.net", "helper_f.py"),
        {"planted_f.py": "from between_f.x import y", "between_f/x.py": "import os, helper_f.z as z"},
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_of_ones_own_that_is_edited_makes_its_runs_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    """The packages and modules of one's own that the config builds are source, and so are those that they import."""
    monkeypatch.syspath_prepend(str(tmp_path))
    target, edited, others = LAYOUTS[layout]
    config = compose(LEAST)
    config.model._target_ = target
    for name, source in {**others, edited: "x = 1"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source)
    before = source_hash_anew(config)
    assert source_hash_anew(config) == before
    (tmp_path / edited).write_text("x = 2")
    assert source_hash_anew(config) != before


def source_hash_anew(config: Any) -> str:
    """Return the source hash as another process would."""
    invalidate_caches()
    identity.package_hash.cache_clear()
    find_packages.cache_clear()
    return identity.source_hash(config)


def test_a_target_that_is_a_reference_is_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name that the reference stands for is hashed."""
    monkeypatch.syspath_prepend(str(tmp_path))
    config = compose(LEAST)
    with open_dict(config):
        config.model = {"_target_": "${model.of}", "of": "planted_g.net"}
    hashes = []
    for source in ("x = 1", "x = 2"):
        (tmp_path / "planted_g.py").write_text(source)
        hashes.append(source_hash_anew(config))
    assert hashes[0] != hashes[1]


def test_installed_packages_are_hashed_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So are packages that cannot be found; a file of one's own that is no Python breaks nothing."""
    assert identity.package_hash("torch") == "torch"
    assert identity.package_hash("no_such_package") == "no_such_package"
    installed = tmp_path / "lib" / "site-packages" / "planted_h" / "net.py"
    installed.parent.mkdir(parents=True)
    installed.write_text("x = 1")
    monkeypatch.syspath_prepend(str(tmp_path / "lib" / "site-packages"))
    assert identity.package_hash("planted_h") == "planted_h"
    (tmp_path / "planted_i.py").write_text("print 'two'")
    monkeypatch.syspath_prepend(str(tmp_path))
    config = compose(LEAST)
    config.model._target_ = "planted_i.net"
    assert source_hash_anew(config)
