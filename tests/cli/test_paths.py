"""Paths that are typed or written in a yaml: the home directory, another working directory, data that have moved."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from microstep.cli.paths import get_hydra_directory
from microstep.config.compose import compose, quote_verbatim
from microstep.training.builders import build_component
from microstep.training.provenance import experiment_hash
from microstep.types.protocols import Dataset
from microstep.utils.files import expand_home
from tests.conftest import error_of
from tests.faults.zygote import Zygote

FOLDER = ("dataset=image_folder", "dataset.size=8", "batch_size=16", "model=mlp", "threads=1", "scheduler=constant")
QUICK = (*FOLDER, "epochs=1", "progress=false")


@pytest.fixture
def home(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a home directory with photos in it; the working directory is another one, and empty."""
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    shutil.copytree(photos, home / "photos")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    return home


def record(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "run.json").read_text()))


def call(zygote: Zygote, program: str, *words: str, cwd: Path | None = None, code: int = 0) -> str:
    """Run a program and return what it prints, or its error."""
    done = zygote.call(f"{program}.py", *words, cwd=cwd or Path.cwd(), HOME=os.environ["HOME"])
    assert done.returncode == code, done.stderr
    return error_of(done) if code else done.stdout + done.stderr


def test_a_tilde_is_the_home_directory_in_every_key(zygote: Zygote, home: Path) -> None:
    """Data, run, sweep, baseline, input and output are found and made there, and no folder named `~` appears."""
    call(zygote, "train", *QUICK, "dataset.root=~/photos", "hydra.run.dir=~/run")
    call(zygote, "evaluate", "run=~/run", "input=~/photos/test/red/0.jpg")
    call(zygote, "compute_stats", "dataset=image_folder", "dataset.root=~/photos", "output=~/stats")
    assert "finished already" in call(zygote, "train", "resume=~/run")
    assert not list(Path.cwd().iterdir())
    assert {path.name for path in home.iterdir()} == {"photos", "run", "stats"}


def test_a_tilde_in_a_directory_of_hydra_is_the_home_directory(home: Path) -> None:
    """Also if a yaml has it. A run's name below the directory of its sweep is no path of its own."""
    node = {"run": {"dir": "~/${x}"}, "sweep": {"dir": "~/${x}", "subdir": "~/${x}"}}
    job = OmegaConf.create({"hydra": node, "x": "x"})
    assert get_hydra_directory(job, "hydra.run.dir") == get_hydra_directory(job, "hydra.sweep.dir") == home / "x"
    assert get_hydra_directory(job, "hydra.sweep.subdir") == Path("~/x")


def test_a_tilde_in_a_yaml_is_the_home_directory(home: Path) -> None:
    """A data set's yaml keeps its path as written, and is the same experiment as with the whole path."""
    Path("conf/dataset").mkdir(parents=True)
    text = "_target_: microstep.components.dataset.image_folder\nroot: ~/photos\nsize: 8\n"
    Path("conf/dataset/mine.yaml").write_text(text)
    Path("conf/train.yaml").write_text("")
    config, whole = (compose(["dataset=mine", *words]) for words in ([], [f"dataset.root={home / 'photos'}"]))
    assert config.dataset.root == "~/photos"
    one, other = (build_component(c, "dataset", Dataset, device=None, num_workers=0) for c in (config, whole))
    assert one.fingerprint == other.fingerprint
    assert experiment_hash(config, one.fingerprint) == experiment_hash(whole, other.fingerprint)


def test_a_tilde_is_expanded_as_by_a_shell(home: Path) -> None:
    """`~user` is that user's home, an unknown user stays, and `~` elsewhere in a name is a letter."""
    assert expand_home("~root/x") == str(Path("~root/x").expanduser()) != "~root/x"
    unchanged = ["~nobody-of-that-name/x", "a/~", "./~/x"]
    assert list(map(expand_home, unchanged)) == unchanged
    assert expand_home("~") == str(home)


@pytest.mark.parametrize("word", ["model.weights=~/my weights.pt", "+model.weights=~/w.pt", "dataset.root=~/a, b"])
def test_a_word_that_begins_with_a_tilde_is_text(word: str) -> None:
    """Hydra's grammar refuses it: it is quoted for any key. A deletion is none."""
    assert quote_verbatim(word) == word.replace("=", "='") + "'"
    assert quote_verbatim("~model=x") == "~model=x"
