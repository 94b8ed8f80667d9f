"""Tests of `init`: a new run that starts from other weights."""

from __future__ import annotations

import json
import shutil
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from microstep.config.compose import compose
from microstep.config.experiment import extract_experiment
from microstep.config.overrides import quote_verbatim
from microstep.errors import ConfigError, DataError
from microstep.training.build import build_trainer
from microstep.training.builders import build_partial_components
from microstep.training.provenance import experiment_hash
from microstep.training.resume import resume
from tests.conftest import fit
from tests.faults.interruptions import stop_at
from tests.faults.runs import differences

WORDS = ("model.width=4", "threads=1", "progress=false", "epochs=2")
OTHER_HEAD = ("dataset=synthetic", "dataset.channels=1", "dataset.size=8", "dataset.classes=3", "dataset.samples=2000")


@pytest.fixture(scope="module")
def parent(tmp_path_factory) -> Path:
    """Return the directory of a finished run, which holds spaces and an equals sign."""
    directory = tmp_path_factory.mktemp("a parent") / "lr=0.1 (old)"
    fit([*WORDS, "epochs=1", "dataset.mean=[0.25]", "dataset.std=[0.5]"], directory)
    return directory


def child(init: Path | str, *words: str):
    return compose([quote_verbatim(f"init={init}"), *WORDS, *words])


def initial(init: Path | str, *words: str) -> dict[str, Tensor]:
    return build_partial_components(child(init, *words)).model.state_dict()


@pytest.mark.parametrize("name", ["", "model.safetensors", "checkpoints/epoch-0001.pt"])
def test_a_run_starts_from_the_weights_of_another(parent, name) -> None:
    """A run directory means its best weights; a file of weights and a checkpoint are read, too."""
    theirs, ours = load_file(parent / "model.safetensors"), initial(parent / name, "seed=3", "optimizer=adam")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())


def test_the_images_are_normalized_as_the_weights_need_it(parent) -> None:
    """Typed values come first, then those of the weights, unless they have another number of channels."""

    def mean(*words: str) -> tuple[float, ...]:
        return build_partial_components(child(parent, *words)).dataset.normalization.mean

    assert mean() == (0.25,)
    assert mean("dataset.mean=[0.5]", "dataset.std=[0.5]") == (0.5,)
    assert len(mean(*OTHER_HEAD, "dataset.channels=3")) == 3


def test_what_does_not_fit_is_listed(parent, caplog) -> None:
    """Another head starts from the seed, and the rest from the file. One line for each reason names what is left."""
    fresh, ours = (
        build_partial_components(compose([*WORDS, *OTHER_HEAD])).model.state_dict(),
        initial(parent, *OTHER_HEAD),
    )
    theirs = load_file(parent / "model.safetensors")
    assert all(torch.equal(tensor, (fresh if "head" in key else theirs)[key]) for key, tensor in ours.items())
    shapes = "head.2.weight (10 × 16, not 3 × 16), head.2.bias (10, not 3)"
    assert caplog.messages == [f"init={parent}: other shapes, so initialized anew: {shapes}"]
    caplog.clear()
    initial(parent, "model.norm=batch")
    assert [line.partition(f"{parent}: ")[2].partition(":")[0] for line in caplog.messages] == [
        "not in the file, so initialized anew",
        "not in the model, so left out",
    ]


@pytest.mark.parametrize(
    ("init", "words", "reason"),
    [
        ("{}", ["model=mlp"], "none of its tensors fits the model"),
        ("{}/nowhere.pt", [], "there is no file .*nowhere.pt; give the directory of a finished run"),
        ("{}/checkpoints", [], "there is no file .*checkpoints/model.safetensors"),
        ("{}/run.json", [], ".*it is damaged, or holds more than tensors"),
    ],
)
def test_what_has_no_weights_for_the_model_is_refused(parent, init, words, reason) -> None:
    """A file that is missing, damaged, or of another model altogether is refused in one line."""
    config = compose([quote_verbatim(f"init={init.format(parent)}"), "threads=1", "progress=false", *words])
    with pytest.raises(DataError, match=rf"^init=.*: {reason}"):
        build_partial_components(config)


def test_the_content_identifies_the_experiment(parent, tmp_path, monkeypatch) -> None:
    """A directory, its file, a copy, a relative path and `~` are one experiment; other weights and none are others."""
    monkeypatch.setenv("HOME", str(parent.parent))
    monkeypatch.chdir(parent.parent)
    copy = shutil.copy(parent / "model.safetensors", tmp_path / "copy.safetensors")
    other = parent / "checkpoints" / "epoch-0001.pt"
    names = (parent, parent / "model.safetensors", copy, parent.name, f"~/{parent.name}")
    assert len({experiment_hash(child(name), "data") for name in names}) == 1
    hashes = {experiment_hash(config, "data") for config in (child(parent), child(other), compose(WORDS))}
    assert len(hashes) == 3
    assert "init" not in extract_experiment(compose(WORDS))


def test_a_run_goes_on_without_the_weights_that_it_began_with(parent, tmp_path) -> None:
    """They are read at the start only. run.json names them, and a resume gives the bits of an unbroken run."""
    began = shutil.copytree(parent, tmp_path / "began")
    build_trainer(child(began), tmp_path / "whole").fit()
    stop_at(build_trainer(child(began), tmp_path / "broken"), 30, lost=True)
    digest = sha256((began / "model.safetensors").read_bytes()).hexdigest()
    shutil.rmtree(began)
    resume(tmp_path / "broken").fit()
    assert differences(tmp_path / "whole", tmp_path / "broken") == []
    record = json.loads((tmp_path / "broken" / "run.json").read_text())
    assert record["parent"] == {"weights": str(began), "sha256": digest}


def test_a_resume_takes_no_other_weights(parent, tmp_path) -> None:
    """`init` is part of the experiment; a run that has none starts as before."""
    stop_at(build_trainer(compose(WORDS), tmp_path / "run"), 30)
    assert "parent" not in json.loads((tmp_path / "run" / "run.json").read_text())
    with pytest.raises(ConfigError, match=r"another experiment: init=.* \(it has None\)"):
        resume(tmp_path / "run", [f"init={parent}"])
