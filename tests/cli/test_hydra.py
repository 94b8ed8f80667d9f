"""Hydra's own keys and flags: each does what Hydra says, or is refused in one line before anything is made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from microstep.cli.start import CommandLine, prepare_start
from microstep.config import names
from microstep.config.compose import Composer
from microstep.config.search_path import CONF
from microstep.sweep.definition import Sweep
from tests.conftest import error_of
from tests.faults.zygote import Zygote

EXPERIMENTS = {
    "sweeps": "# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {params: {seed: '0,1'}}}\n",
    "globs": "# @package _global_\nhydra: {sweeper: {params: {precision: 'glob(fp*,exclude=fp6*)'}}}\n",
    "ranges": "# @package _global_\nhydra: {sweeper: {params: {optimizer.lr: 'interval(0.1,0.2)'}}}\n",
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Enter a directory whose conf/ has experiments with `hydra.sweeper.params`."""
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    for name, text in EXPERIMENTS.items():
        (tmp_path / "conf" / "experiment" / f"{name}.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def job_names(*words: str) -> list[str]:
    """Return the names of the jobs that a command starts; none if it starts a single run."""
    names.register_resolvers()
    seen: list[Sweep] = []
    overrides = [word for word in words if word != "-m"]
    with Composer.open(CONF, "train") as composer:
        line = CommandLine(composer, overrides, "train", print, lambda study: lambda sweep, *_: seen.append(sweep))
        start = prepare_start(line, "-m" in words)
        if "start_sweep" in repr(start):
            start()
    return [job.name for sweep in seen for job in sweep.jobs]


@pytest.mark.parametrize(
    ("words", "jobs"),
    [
        ("hydra.mode=MULTIRUN seed=0,1", ["seed-0", "seed-1"]),
        ("-m hydra.mode=RUN seed=0,1", ["seed-0", "seed-1"]),
        ("experiment=sweeps", ["seed-0", "seed-1"]),
        ("-m experiment=sweeps seed=2", ["seed-2"]),
        ("experiment=globs", []),
        ("-m experiment=globs", ["precision-fp16", "precision-fp32"]),
        ("-m precision=glob(fp3*) seed=range(0,2)", ["precision-fp32_seed-0", "precision-fp32_seed-1"]),
    ],
)
def test_a_sweep_is_asked_for_in_all_of_hydra_s_ways(home: Path, words: str, jobs: list[str]) -> None:
    """By -m, hydra.mode and hydra.sweeper.params, with lists, globs and ranges."""
    assert job_names(*words.split()) == jobs


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("hydra.mode=BOTH", "hydra.mode: "),
        ("hydra.mode=MULTIRUN --cfg job seed=0,1", "hydra.mode=MULTIRUN seed=0,1: "),
        ("-m hydra.sweeper.params.seed=2", "hydra.sweeper.params.seed=2: a sweeper takes its params from a yaml; "),
        ("hydra.sweeper.params={seed:2}", "hydra.sweeper.params={seed:2}: a sweeper takes its params from a yaml; "),
        ("-m experiment=ranges", "optimizer.lr=interval(0.1,0.2): a sweep takes single values; list them"),
        ("-m precision=glob(zz*)", "precision=glob(zz*): it has no value; give at least one"),
        ("-m seed=range(0,0)", "seed=range(0,0): it has no value; "),
        ("hydra.searchpath=[file://nope]", "hydra.searchpath=[nope]: no such directory or package; "),
        ("-m hydra.searchpath=[pkg://nope.conf]", "hydra.searchpath=[nope.conf]: no such directory or package; "),
        ("-m ++hydra.run.dir=d seed=0,1", "hydra.run.dir=d: -m gives each run a directory of its own; "),
        ("hydra.sweep.dir=d", "hydra.sweep.dir=d: it names a sweep, and this is one run; add -m"),
        ("--config-name evaluate run=x", "--config-name evaluate: it is no config of train.py; begin its defaults "),
        ("--hydra-help model=mlp", "model=mlp: "),
        ("-m model=mlp,small_cnn model.dropout=0.1", "model.dropout=0.1 with model=small_cnn: no such key; "),
        ("-m experiment=sweeps,globs acum=2", "acum=2 with experiment=sweeps: no such key; did you mean accum?"),
    ],
)
def test_what_cannot_work_is_refused(zygote: Zygote, home: Path, words: str, says: str) -> None:
    """It is one line with exit code 2, and no directory is left behind."""
    done = zygote.call("train.py", *words.split(), cwd=home)
    assert (done.returncode, error_of(done)[: len(says) + 7]) == (2, f"error: {says}")
    assert [path.name for path in home.iterdir()] == ["conf"]


def test_a_relative_search_path_holds_in_the_run_directory(zygote: Zygote, home: Path) -> None:
    """hydra.job.chdir leaves options of the search path trusted: the run is evaluated with the printed command."""
    (home / "more" / "model").mkdir(parents=True)
    (home / "more" / "model" / "mine.yaml").write_text("_target_: modelling.net\n")
    (home / "modelling.py").write_text(
        "from torch import nn\n\ndef net(input_shape, num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))\n"
    )
    words = ("hydra.searchpath=[file://more]", "model=mine", "epochs=1", "threads=1", "hydra.run.dir=d")
    done = zygote.call("train.py", *words, "hydra.job.chdir=true", cwd=home, PYTHONPATH=str(home))
    assert (done.returncode, done.stderr) == (0, "")
    assert " 'hydra.searchpath=[file://more]' run=d split=test" in done.stdout
    again = ("hydra.searchpath=[file://more]", "run=d", "split=test")
    assert zygote.call("evaluate.py", *again, cwd=home, PYTHONPATH=str(home)).returncode == 0


@pytest.mark.parametrize("words", ["", "-m seed=0,1"])
def test_what_fails_before_a_job_begins_leaves_nothing(zygote: Zygote, home: Path, words: str) -> None:
    """A directory that would hold only its lock is removed, also of a sweep."""
    words = f"{words} +hydra.callbacks.x._target_=nope.Nope"
    done = zygote.call("train.py", *words.split(), cwd=home, XDG_CACHE_HOME="/dev/null")
    assert done.returncode == 1 and "Error locating target 'nope.Nope'" in error_of(done)
    assert [path.name for path in home.iterdir()] == ["conf"]


def test_a_job_that_fails_before_it_writes_leaves_nothing(zygote: Zygote, home: Path) -> None:
    """A directory that would hold only its lock is removed, whatever the error."""
    (home / "conf" / "dataset").mkdir()
    (home / "conf" / "dataset" / "bad.yaml").write_text("_target_: loading.bad\n")
    (home / "loading.py").write_text("def bad():\n    raise RuntimeError('planted')\n")
    words = ("dataset=bad", "check=precision", "hydra/job_logging=none", "hydra.output_subdir=null")
    before = sorted(home.iterdir())
    done = zygote.call("train.py", *words, cwd=home, PYTHONPATH=str(home), XDG_CACHE_HOME="/dev/null")
    assert done.returncode == 1 and "RuntimeError: planted" in error_of(done)
    assert [path for path in home.iterdir() if path.name != "__pycache__"] == before


@pytest.mark.parametrize(
    ("words", "missing"),
    [("hydra.output_subdir=null", ".hydra"), ("hydra/job_logging=disabled", "train.log"), ("hydra.verbose=true", "x")],
)
def test_hydra_s_own_files_may_be_left_out(zygote: Zygote, tmp_path: Path, words: str, missing: str) -> None:
    """The run itself is complete."""
    done = zygote.call("train.py", words, "model=mlp", "epochs=1", "threads=1", "hydra.run.dir=d", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((tmp_path / "d" / "run.json").read_text())["status"] == "finished"
    assert not (tmp_path / "d" / missing).exists()
