"""Paths that are typed or written in a yaml: the home directory, another working directory, data that have moved."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torchvision.models import get_model

from microstep.cli.paths import get_hydra_directory
from microstep.config.allowlist import ALLOW_ALL
from microstep.config.compose import compose
from microstep.config.experiment import RESUMABLE_KEYS
from microstep.config.overrides import quote_verbatim
from microstep.errors import DataError
from microstep.evaluation.evaluate import evaluate_run
from microstep.run.resume import plan_auto_resume
from microstep.run.saved_run import SavedRun
from microstep.training import provenance
from microstep.training.instantiation import build_component
from microstep.training.provenance import experiment_hash
from microstep.training.resume import resume
from microstep.training.source import digest_files
from microstep.types.protocols import Dataset
from microstep.utils.files import expand_home
from microstep.utils.progress_bar import ProgressBars
from tests.conftest import error_of, fit
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


@pytest.fixture(scope="module")
def relative(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with photos and a finished run that has their relative path."""
    home = tmp_path_factory.mktemp("started")
    shutil.copytree(photos, home / "photos")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        fit([*QUICK, "dataset.root=photos"], home / "run")
    return home


def evaluate(run: Path, **overrides: object) -> bytes:
    """Evaluate in this process with other keys of the data set, and return the predictions."""
    typed = {f"dataset.{key}": value for key, value in overrides.items()}
    done = evaluate_run(run, "test", "best", ALLOW_ALL, None, ProgressBars(False), typed)
    return (done.directory / "predictions.csv").read_bytes()


def test_data_of_a_relative_path_are_found_from_anywhere(
    relative: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run is evaluated and resumed from another working directory; its config.yaml keeps the path as typed."""
    run = shutil.copytree(relative / "run", tmp_path / "run")
    before = (run / "config.yaml").read_bytes(), (run / "reports" / "test" / "predictions.csv").read_bytes()
    monkeypatch.chdir(tmp_path)
    assert evaluate(run) == before[1]
    assert resume(run, ["epochs=2"]).fit().samples_seen > 0
    evaluate(run)
    assert (run / "config.yaml").read_bytes() == before[0]
    assert [one["overrides"] for one in record(run)["resumed"]] == [{"epochs": 2}]
    assert record(run)["working_directory"] == str(relative)


def test_data_that_moved_with_the_working_directory_are_found(
    relative: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If they are not where the run was started, they are sought in the working directory."""
    moved = shutil.copytree(relative, tmp_path / "moved")
    content = record(moved / "run") | {"working_directory": str(tmp_path / "gone")}
    (moved / "run" / "run.json").write_text(json.dumps(content))
    monkeypatch.chdir(moved)
    assert evaluate(Path("run")) == (relative / "run" / "reports" / "test" / "predictions.csv").read_bytes()


def test_a_relative_path_typed_for_a_resume_is_that_of_the_working_directory(
    relative: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is recorded absolute, even if it reads like the run's own, and holds from anywhere afterwards."""
    run = shutil.copytree(relative / "run", tmp_path / "run")
    shutil.copytree(relative / "photos", tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    plan = plan_auto_resume(run, compose([*QUICK, "dataset.root=photos"]), ALLOW_ALL)
    assert plan.overrides == {"dataset.root": str(tmp_path / "photos")}
    assert plan.config.dataset.root == str(tmp_path / "photos")


def test_weights_of_a_relative_path_are_found_from_anywhere(
    relative: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run without a checkpoint begins with them again, and a resumed run sees that they are unchanged."""
    torch.save(get_model("mobilenet_v3_small", num_classes=5).state_dict(), tmp_path / "w.pt")
    config = compose([*QUICK, f"dataset.root={relative / 'photos'}", "model=torchvision", "model.weights=w.pt"])
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(OmegaConf.to_yaml(config))
    (tmp_path / "run" / "run.json").write_text(json.dumps({"status": "failed", "working_directory": str(tmp_path)}))
    monkeypatch.chdir(relative)
    saved = SavedRun.read(tmp_path / "run")
    assert digest_files(saved.absolute_paths(config, ["model.weights"])).keys() == {"model.weights"}
    assert resume(tmp_path / "run").progress.epoch == 0


def test_other_data_at_the_place_of_the_run_are_refused(
    relative: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fingerprint decides, wherever the data were found; the error says how to name others."""
    run = shutil.copytree(relative / "run", tmp_path / "run")
    (shutil.copytree(relative / "photos", tmp_path / "photos") / "test/red/0.jpg").unlink()
    content = record(run) | {"working_directory": str(tmp_path)}
    (run / "run.json").write_text(json.dumps(content))
    monkeypatch.chdir(relative)
    with pytest.raises(DataError, match=r"the data have changed since the run; .*dataset\.root=DIR"):
        evaluate(run)


def test_a_limit_of_pixels_may_be_raised_by_a_resume(
    relative: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can't change a result. A run whose config hash has it, as older ones do, is resumed as well."""
    monkeypatch.chdir(relative)
    monkeypatch.setattr(provenance, "RESUMABLE_KEYS", RESUMABLE_KEYS - {"dataset.max_pixels"})
    fit([*QUICK, "dataset.root=photos", "+dataset.max_pixels=2000"], tmp_path / "run")
    monkeypatch.setattr(provenance, "RESUMABLE_KEYS", RESUMABLE_KEYS)
    assert resume(tmp_path / "run", ["epochs=2", "++dataset.max_pixels=3000"]).fit().samples_seen > 0
    assert record(tmp_path / "run")["resumed"][0]["overrides"] == {"epochs": 2, "dataset.max_pixels": 3000}


@pytest.fixture
def moved(relative: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory with a copy of the run, whose data lie in `new` now."""
    home = shutil.copytree(relative, tmp_path / "moved")
    (home / "photos").rename(home / "new")
    content = record(home / "run") | {"working_directory": str(home)}
    (home / "run" / "run.json").write_text(json.dumps(content))
    monkeypatch.chdir(home)
    return home


def test_data_that_moved_are_named_when_the_run_is_evaluated(zygote: Zygote, moved: Path) -> None:
    """The key that the error asks for is accepted, with others that can't change the result."""
    before = (moved / "run" / "reports" / "test" / "predictions.csv").read_bytes()
    said = call(zygote, "evaluate", "run=run", code=2)
    assert said == "error: dataset.root=photos: no such directory; give the one that holds the images"
    others = ("dataset.resident=false", "dataset.budget_gib=1", "++dataset.max_pixels=2000", "num_workers=1")
    call(zygote, "evaluate", "run=run", "dataset.root=new", *others)
    assert (moved / "run" / "reports" / "test" / "predictions.csv").read_bytes() == before


def test_other_data_in_their_place_are_refused(moved: Path) -> None:
    """The fingerprint of the data is compared, wherever they are."""
    (moved / "new" / "test" / "red" / "0.jpg").unlink()
    with pytest.raises(DataError, match="the data have changed since the run"):
        evaluate(moved / "run", root="new")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("dataset.rot=x", "dataset.rot=x: no such key; did you mean dataset.root"),
        ("dataset.max_pixels=x", "dataset.max_pixels=x: it is text; give null or a whole number"),
        ("dataset.max_pixels=0", "dataset.max_pixels=0: out of range; "),
        (
            "dataset.root=new dataset.file=x",
            "dataset (microstep.components.dataset.image_folder): file_dataset() got an unexpected ",
        ),
        (
            "dataset.root=new dataset.resident=maybe",
            "dataset.resident=maybe: no such option; the options are auto, true, false",
        ),
    ],
)
def test_a_wrong_key_of_the_data_is_one_line(zygote: Zygote, moved: Path, word: str, said: str) -> None:
    """A misspelt key, a wrong value, and a key that the run's data set does not have end with exit code 2."""
    assert call(zygote, "evaluate", "run=run", *word.split(), code=2).startswith(f"error: {said}")


def test_what_a_finished_run_does_not_use_is_told(zygote: Zygote, moved: Path) -> None:
    """A resume has nothing left to do: the line names what was typed."""
    said = call(zygote, "train", "resume=run", "dataset.root=new", "log_every_steps=3").strip()
    assert said.endswith("; not used: dataset.root=new, log_every_steps=3")


def test_a_limit_of_pixels_is_raised_as_the_error_says(zygote: Zygote, relative: Path) -> None:
    """`++dataset.max_pixels` is accepted by every program, whether the config has the key or not."""
    words = ("dataset=image_folder", f"dataset.root={relative / 'photos'}")
    for word in ((), ("+dataset.max_pixels=5",)):
        run = compose([*words, *word, "++dataset.max_pixels=9"])
        assert run.dataset.max_pixels == 9
        assert compose([*words, "++dataset.max_pixels=9"], config_name="compute_stats").dataset.max_pixels == 9
    assert compose(["run=x", "++dataset.max_pixels=9"], config_name="evaluate").dataset.max_pixels == 9
