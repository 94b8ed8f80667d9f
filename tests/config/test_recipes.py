"""Recipes in conf/experiment train as they are."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torchvision.models import get_model

from microstep.config.compose import compose
from microstep.errors import DataError
from microstep.training.build import build_trainer
from microstep.training.resume import resume
from tests.components.dataset.cifar_files import write_cifar
from tests.components.model.states import NAME, saved, trained_state
from tests.conftest import fit
from tests.faults.interruptions import stop_at
from tests.faults.runs import differences, state_of

PARTS = ("sampler", "augment", "step", "gradient", "average", "scheduler", "stop", "precision")
QUIET = ("threads=1", "progress=false")
TUNED = ("model=torchvision", f"model.name={NAME}", "dataset.size=32", "dataset.val_fraction=0.2", "batch_size=16")
HEAD = "param_groups=[{match:'^4',lr:0.3}]"  #: of an MLP with one hidden layer and dropout


@pytest.mark.parametrize("model", ["mlp", "small_cnn"])
def test_debug_trains_any_model_with_every_part_on(model: str, tmp_path: Path) -> None:
    """It ends within seconds, and each part is another one than by default."""
    config = compose(["experiment=debug", f"model={model}", *QUIET])
    assert all(config[part]._target_ != compose()[part]._target_ for part in PARTS)
    build_trainer(config, tmp_path / "run").fit()
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "finished"


def test_photos_trains_on_a_folder(photos: Path, tmp_path: Path) -> None:
    """It tells made-up photos of three colors apart within a few epochs."""
    words = ["experiment=photos", f"dataset.root={photos}", "model.width=4", "epochs=8", "batch_size=8", *QUIET]
    assert fit(words, tmp_path / "run").test["accuracy"] > 0.9


@pytest.mark.parametrize("dataset", ["cifar10", "fashion_mnist"])
def test_cifar10_fast_says_how_long_it_will_take(dataset: str, idx_files, tmp_path: Path, monkeypatch, capsys) -> None:
    """It trains on CIFAR-10 and on Fashion-MNIST, and prints the expected time before epoch 1."""
    root = idx_files if dataset == "fashion_mnist" else tmp_path
    if dataset == "cifar10":
        write_cifar(tmp_path, 10, monkeypatch)
    words = ["model.width=4", "dataset.val_samples=20", "epochs=2", "batch_size=16", *QUIET]
    fit(["experiment=cifar10_fast", f"dataset={dataset}", f"dataset.root={root}", *words], tmp_path / "run")
    assert "expected time" in capsys.readouterr().out.partition("epoch 1/2")[0]


def test_finetune_trains_the_head_first(photos: Path, tmp_path: Path) -> None:
    """After its first epochs all weights of the backbone have the file's bits, but not its running statistics."""
    state, weights = trained_state(), dict(get_model(NAME).named_parameters())
    backbone = {name for name in weights if not name.startswith("classifier.")}
    words = [*TUNED, f"model.weights={saved(state, tmp_path / 'weights.pth')}", "scheduler.head_epochs=1", *QUIET]
    for epochs in (1, 2):
        run = tmp_path / str(epochs)
        fit(["experiment=finetune", f"dataset.root={photos}", *words, f"epochs={epochs}"], run)
        found = {name.removeprefix("model."): tensor for name, tensor in state_of(run, "last")["model"].items()}
        changed = {name for name, tensor in state.items() if not torch.equal(found[name], tensor)}
        assert changed >= {"classifier.3.weight", "features.0.1.running_mean"}
        assert changed & backbone == (set() if epochs == 1 else backbone)


def test_a_killed_run_goes_on_with_its_head_or_with_all(tmp_path: Path) -> None:
    """Stopped in either part, a run with `scheduler=head_first` ends with the same bits."""
    words = ["model=mlp", "model.hidden=[8]", "scheduler=head_first", "scheduler.head_epochs=1.5", HEAD, "epochs=3"]
    fit([*words, *QUIET], tmp_path / "whole")
    for windows in (20, 40):
        run = tmp_path / str(windows)
        stop_at(build_trainer(compose([*words, *QUIET]), run), windows, lost=windows == 40)
        resume(run).fit()
        assert differences(run, tmp_path / "whole") == []


def test_finetune_without_weights_names_the_ways_out(photos: Path, tmp_path: Path, monkeypatch) -> None:
    """If the weights can't be downloaded, one line says where to put them, and what else to type."""

    def unreachable(*_: object, **__: object) -> None:
        raise URLError(OSError(-2, "Name or service not known"))

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    with pytest.raises(DataError, match=r"put resnet18-\w+.pth from .* into .*, or type model.weights=FILE$"):
        build_trainer(compose(["experiment=finetune", f"dataset.root={photos}", *QUIET]), tmp_path / "run")
