"""microstep without its repository: installed from a wheel, with yamls of one's own in ./conf."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from microstep.config.compose import compose
from microstep.config.search_path import CONF
from tests.conftest import ROOT, call, error_of

QUICK = ("epochs=1", "threads=1", "progress=false")
NET = """
from math import prod
from torch import nn

def net(input_shape, num_classes, width):
    return nn.Sequential(nn.Flatten(), nn.Linear(prod(input_shape), width), nn.ReLU(), nn.Linear(width, num_classes))
"""


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def options_of_ones_own(home: Path) -> None:
    """Write a model, its yaml, and an option that hides one of ours."""
    write(home / "mine.py", NET)
    write(home / "conf" / "model" / "mynet.yaml", "_target_: mine.net\nwidth: 8\n")
    write(home / "conf" / "optimizer" / "sgd.yaml", "_target_: torch.optim.SGD\nlr: 0.07\n")


# From a wheel.


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that a build needs."""
    copy = tmp_path_factory.mktemp("sources")
    for name in ("src", "conf"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("*.egg-info", "*.pyc"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    return copy


def built(sources: Path, kind: str, to: Path) -> Path:
    """Build a wheel or an sdist, without a network."""
    script = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(to)!r}))"
    done = subprocess.run([sys.executable, "-c", script], cwd=sources, capture_output=True, text=True, check=True)
    return to / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(sources, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new environment, which has the wheel, and this one's packages for the rest."""
    home = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    (packages,) = home.glob("lib/python*/site-packages")
    others = [path for path in sys.path if path.endswith("-packages")]
    (packages / "others.pth").write_text("\n".join(others))
    pip = [sys.executable, "-m", "pip", "--python", home / "bin" / "python", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--no-index", "--no-deps", "--ignore-installed", wheel], check=True)
    return home / "bin"


def run(program: Path, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    return subprocess.run([program, *words], cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


def test_an_installed_microstep_trains_a_model_of_ones_own(programs: Path, tmp_path: Path) -> None:
    """In an empty folder, with nothing but a model and its yaml; the run is then evaluated, whose target is trusted."""
    options_of_ones_own(tmp_path)
    where = run(programs / "python", "-c", "import microstep; print(microstep.__file__)", cwd=tmp_path)
    assert where.stdout.startswith(str(programs.parent))
    done = run(programs / "microstep-train", "model=mynet", *QUICK, "hydra.run.dir=run", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "model          mynet: 610 parameters" in done.stdout
    assert "microstep-evaluate run=run split=test" in done.stdout
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["status"], record["choices"]["model"]) == ("finished", "mynet")
    again = run(programs / "microstep-evaluate", "run=run", cwd=tmp_path)
    assert (again.returncode, again.stderr) == (0, "")


def test_python_m_microstep_is_the_same(programs: Path, tmp_path: Path) -> None:
    """`python -m microstep train`, `evaluate` and `stats`; `--help` says what to type in this form."""
    options_of_ones_own(tmp_path)
    python = programs / "python"
    done = run(python, "-m", "microstep", "train", "model=mynet", *QUICK, "hydra.run.dir=run", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "python -m microstep evaluate run=run split=test" in done.stdout
    for name in ("train", "evaluate", "stats"):
        done = run(python, "-m", "microstep", name, "--help", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"python -m microstep {name} " in done.stdout
    done = run(python, "-m", "microstep", "tain", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        "error: tain: no such program; the programs are train, evaluate, stats\n",
    )


def test_the_wheel_and_the_sdist_hold_every_yaml(wheel: Path, sources: Path, tmp_path: Path) -> None:
    """As files, though the repository has a link; what is built from the sdist is the same."""
    yamls = {f"microstep/conf/{path.relative_to(CONF)}" for path in CONF.rglob("*.yaml")}
    assert yamls <= set(zipfile.ZipFile(wheel).namelist())
    shutil.unpack_archive(built(sources, "sdist", tmp_path), tmp_path)
    (unpacked,) = (path for path in tmp_path.iterdir() if path.is_dir())
    (tmp_path / "again").mkdir()
    again = built(unpacked, "wheel", tmp_path / "again")
    assert set(zipfile.ZipFile(again).namelist()) == set(zipfile.ZipFile(wheel).namelist())


# The order of places.


def lr(home: Path, *words: str) -> str:
    """Return the learning rate that a command composes."""
    done = call("train.py", "--cfg", "job", "--package", "optimizer.lr", *words, cwd=home)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def test_one_order_holds_everywhere(tmp_path: Path) -> None:
    """--config-dir, hydra.searchpath, ./conf, then ours."""
    for place, value in (("typed", 0.1), ("search", 0.2), ("conf", 0.3)):
        write(tmp_path / place / "optimizer" / "sgd.yaml", f"_target_: torch.optim.SGD\nlr: {value}\n")
    search = f"hydra.searchpath=[file://{tmp_path / 'search'}]"
    assert lr(tmp_path, search, "--config-dir", "typed") == "0.1"
    assert lr(tmp_path, search) == "0.2"
    assert lr(tmp_path) == "0.3"
    shutil.rmtree(tmp_path / "conf")
    assert lr(tmp_path) == "0.03"


def test_an_option_of_the_search_path_is_an_option(tmp_path: Path) -> None:
    """It may be chosen, and its keys are checked; the line about one that isn't there names it."""
    write(tmp_path / "search" / "model" / "mine.yaml", "_target_: microstep.components.model.mlp\nhidden: 7\n")
    words = (f"hydra.searchpath=[file://{tmp_path / 'search'}]", "--cfg", "job", "--package", "model.hidden")
    assert call("train.py", *words, "model=mine", cwd=tmp_path).stdout == "7\n"
    assert "model.hidden=x: it is text" in error_of(
        call("train.py", *words, "model=mine", "model.hidden=x", cwd=tmp_path)
    )
    assert "mine" in error_of(call("train.py", *words, "model=mein", cwd=tmp_path))


def test_a_program_of_ones_own_has_its_conf(tmp_path: Path) -> None:
    """Its conf/ comes before ours, behind ./conf, and may have a primary config; what it lacks is ours."""
    (tmp_path / "program").mkdir()
    shutil.copy(ROOT / "train.py", tmp_path / "program")
    write(tmp_path / "program" / "conf" / "optimizer" / "sgd.yaml", "_target_: torch.optim.SGD\nlr: 0.4\n")
    (tmp_path / "home").mkdir()
    command = [sys.executable, tmp_path / "program" / "train.py", "--cfg", "job", "-p", "optimizer.lr"]
    assert subprocess.check_output(command, cwd=tmp_path / "home", text=True) == "0.4\n"
    write(tmp_path / "home" / "conf" / "optimizer" / "sgd.yaml", "_target_: torch.optim.SGD\nlr: 0.3\n")
    assert subprocess.check_output(command, cwd=tmp_path / "home", text=True) == "0.3\n"


def test_a_primary_config_in_the_current_folder_is_left_alone(tmp_path: Path) -> None:
    """Another project's conf/train.yaml is not ours; --config-dir takes it."""
    text = (CONF / "train.yaml").read_text().replace("  - _self_\n", "  - _self_\nepochs: 7\n")
    write(tmp_path / "conf" / "train.yaml", text)
    words = ("--cfg", "job", "--package", "epochs")
    assert call("train.py", *words, cwd=tmp_path).stdout == "20\n"
    assert call("train.py", *words, "--config-dir", "conf", cwd=tmp_path).stdout == "7\n"


def test_a_notebook_follows_the_same_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`compose` finds the options of the folder that it is called in."""
    options_of_ones_own(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert compose(["model=mynet"]).model._target_ == "mine.net"
    assert compose().optimizer.lr == 0.07
    monkeypatch.chdir(ROOT)
    assert compose().optimizer.lr == 0.03


def summary(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line.split(maxsplit=2)[2] for line in done.stdout.splitlines() if line.startswith("  your options ")]


def test_the_summary_names_options_of_ones_own(zygote, tmp_path: Path) -> None:
    """Each one of ./conf, and whether it hides one of ours; one of --config-dir only if it does."""
    options_of_ones_own(tmp_path)
    words = ("model=mynet", *QUICK)
    done = zygote.call("train.py", *words, "hydra.run.dir=a", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    (told,) = summary(done)
    assert set(told.split(", ")) == {"conf/optimizer/sgd.yaml (instead of microstep's)", "conf/model/mynet.yaml"}
    (tmp_path / "conf").rename(tmp_path / "typed")
    words = ("--config-dir", "typed", *words)
    done = zygote.call("train.py", *words, "hydra.run.dir=b", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert summary(done) == ["typed/optimizer/sgd.yaml (instead of microstep's)"]


def test_of_our_own_conf_nothing_is_said(zygote, tmp_path: Path) -> None:
    """Also if ./conf is the package's, as in the repository, or the program's."""
    done = zygote.call("train.py", "model=mlp", *QUICK, f"hydra.run.dir={tmp_path}/run", cwd=ROOT)
    assert (done.returncode, summary(done)) == (0, [])
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    write(tmp_path / "conf" / "optimizer" / "sgd.yaml", "_target_: torch.optim.SGD\nlr: 0.07\n")
    shutil.copy(ROOT / "train.py", tmp_path)
    command = [sys.executable, "train.py", "model=mlp", *QUICK, "hydra.run.dir=run2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, summary(done)) == (0, [])


def test_options_of_the_current_folder_are_trusted(zygote, tmp_path: Path) -> None:
    """A run that names a target of ./conf is evaluated there, and refused elsewhere."""
    options_of_ones_own(tmp_path)
    path = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    assert zygote.run("train.py", "model=mynet", *QUICK, "hydra.run.dir=run", cwd=tmp_path, **path) == 0
    assert zygote.run("evaluate.py", "run=run", cwd=tmp_path, **path) == 0
    (tmp_path / "elsewhere").mkdir()
    done = zygote.call("evaluate.py", "run=../run", cwd=tmp_path / "elsewhere", **path)
    assert done.returncode == 2
    assert error_of(done).startswith("error: model._target_=mine.net: the run directory names it")
