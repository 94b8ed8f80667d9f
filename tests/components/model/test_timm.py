"""Tests of timm's models. Nothing is downloaded: weights are those of files."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from microstep.components.model.timm_models import timm_model
from microstep.config.compose import compose
from microstep.errors import ConfigError, DataError
from microstep.run.weights import WeightsFile
from microstep.training.build import build_trainer
from microstep.training.builders import build_partial_components
from tests.components.model.states import core

NAME = "test_resnet"  # small models of timm for tests
COLOR, GRAY = (3, 32, 32), (1, 32, 32)
HEAD = {"fc.weight", "fc.bias"}
CLASSES = 1000  #: of timm's own weights


def test_without_timm_it_says_what_to_install(monkeypatch) -> None:
    """A missing extra is exit code 2, with the command that installs it."""
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r"^model=timm: .*timm.*; pip install 'microstep\[timm\]'$"):
        timm_model(NAME, COLOR, 4)


@pytest.fixture
def timm():
    return pytest.importorskip("timm")


@pytest.fixture
def weights(timm, tmp_path) -> str:
    """Return a file like those of timm's hub: a state dict for 1,000 classes."""
    with torch.random.fork_rng():
        torch.manual_seed(99)
        state = timm.create_model(NAME, num_classes=CLASSES).state_dict()
    save_file(state, tmp_path / "weights.safetensors")
    return str(tmp_path / "weights.safetensors")


def seeded(*arguments, **options) -> nn.Module:
    torch.manual_seed(3)
    return timm_model(*arguments, **options)


@pytest.mark.parametrize("name", [NAME, "resnet10t", "mobilenetv3_small_050", "test_convnext"])
@pytest.mark.parametrize("shape", [COLOR, GRAY, (4, 32, 32)], ids=["color", "gray", "four"])
def test_timms_models_by_name(timm, name, shape) -> None:
    """Images of any number of channels give one logit a class, in both modes."""
    for training in (True, False):
        assert timm_model(name, shape, 6).train(training)(torch.randn(2, *shape)).shape == (2, 6)


@pytest.mark.parametrize(
    ("name", "nearest"), [("test_resnett", "test_resnet"), ("resnet18.a1_in1", "resnet18.a1_in1k")]
)
def test_a_wrong_name_is_refused_with_the_nearest(timm, name, nearest) -> None:
    """Names and tags are compared with those of timm."""
    with pytest.raises(ValueError, match=rf"name={name} is not one of timm's .*: nearest are {nearest}\b"):
        timm_model(name, COLOR, 4)


@pytest.mark.parametrize("shape", [COLOR, GRAY], ids=["color", "gray"])
@pytest.mark.parametrize("hub", [False, True], ids=["file", "hub"])
def test_the_backbone_is_that_of_the_weights_and_the_head_is_new(weights, shape, hub) -> None:
    """For a file, and for weights that timm finds itself; the head depends on the seed alone."""
    options = {"weights": "DEFAULT", "pretrained_cfg_overlay": {"file": weights}} if hub else {"weights": weights}
    theirs, model = load_file(weights), seeded(NAME, shape, CLASSES, **options)
    ours, random = core(model).state_dict(), torch.rand(3)
    assert {name for name in ours if not torch.equal(ours[name], theirs[name])} == HEAD
    fresh = core(seeded(NAME, shape, CLASSES)).state_dict()
    assert all(torch.equal(ours[name], fresh[name]) for name in HEAD) and torch.equal(random, torch.rand(3))
    mean = 0.5 if hub else None  # the file does not say it
    assert model.normalization == (mean and ((mean,) * shape[0],) * 2)


def test_the_normalization_is_that_of_the_weights(weights) -> None:
    """A run on timm's weights takes their mean and standard deviation; unread, the model states them all the same."""
    words = ("model=timm", f"model.name={NAME}", "model.weights=DEFAULT", "threads=1", "progress=false")
    overlay = f"+model.pretrained_cfg_overlay={{file: {weights}, mean: [0.2,0.2,0.2], std: [0.4,0.4,0.4]}}"
    assert build_partial_components(compose([*words, overlay])).dataset.normalization.mean == pytest.approx((0.2,))
    assert timm_model(NAME, COLOR, 4, weights="DEFAULT", load_weights=False).normalization == ((0.5,) * 3, (0.5,) * 3)


def test_the_weights_that_a_run_writes_have_timms_names(timm, tmp_path) -> None:
    """model.safetensors fits timm's own model, and is a file for `model.weights`."""
    first = seeded(NAME, GRAY, 5)
    WeightsFile(tmp_path / "model.safetensors", {}).write(first, 1, {})
    state = load_file(tmp_path / "model.safetensors")
    timm.create_model(NAME, num_classes=5).load_state_dict(state)
    ours = core(timm_model(NAME, COLOR, 5, weights=str(tmp_path / "model.safetensors"))).state_dict()
    assert (
        {name for name in ours if not torch.equal(ours[name], state[name])} == HEAD if ours["fc.bias"].dim() else True
    )


def test_a_backbone_or_a_pattern_is_frozen(weights) -> None:
    """As for torchvision's models: `backbone` needs weights, a pattern does not."""
    for options in ({"weights": weights, "freeze": "backbone"}, {"freeze": "^(conv1|bn1|layer)"}):
        model = timm_model(NAME, COLOR, 4, **options).train()
        trained = {name for name, parameter in core(model).named_parameters() if parameter.requires_grad}
        assert trained == HEAD and not core(model).bn1.training
    with pytest.raises(ConfigError, match=r"^model\.freeze=backbone: .*give model\.weights"):
        timm_model(NAME, COLOR, 4, freeze="backbone")


def test_images_of_another_size_are_refused_with_the_size(timm) -> None:
    """A transformer takes one size, which the error names; `img_size` builds it for another."""
    with pytest.raises(
        ConfigError, match=r"can't take images of 32 × 32, the smallest .* 224 × 224; set dataset\.size=224"
    ):
        timm_model("vit_tiny_patch16_224", COLOR, 4)
    assert timm_model("vit_tiny_patch16_224", COLOR, 4, img_size=32)(torch.randn(2, *COLOR)).shape == (2, 4)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"weights": "nowhere.pt"}, "there is no file"),
        (
            {"weights": "DEFAULT", "pretrained_cfg_overlay": {"file": "nowhere.pt"}},
            "timm can't load them: FileNotFoundError",
        ),
        ({"weights": "{}", "name": "test_convnext"}, "it doesn't fit test_convnext: "),
    ],
)
def test_weights_that_cannot_be_loaded_are_one_line(weights, options, reason) -> None:
    """A missing file, one that timm can't find, and one of another model are exit code 2."""
    options = {"name": NAME, **options, "weights": options["weights"].format(weights)}
    with pytest.raises(DataError, match=rf"^model\.weights=.*: {reason}"):
        timm_model(input_shape=COLOR, num_classes=4, **options)


def test_a_run_records_the_version_of_timm(timm, tmp_path: Path) -> None:
    """Only a run whose model is timm's depends on it."""
    words = ("model=timm", f"model.name={NAME}", "threads=1", "progress=false", "batch_size=512")
    trainer = build_trainer(compose(words), tmp_path / "run")
    assert trainer.identity["run"]["versions"]["timm"] == timm.__version__
    window = next(trainer.loaders.train(epoch=1))
    assert trainer.step(trainer.model, trainer.optimization.optimizer, window.batches, window.weight).updated
