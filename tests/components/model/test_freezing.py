"""Tests of `model.freeze`, which every model has."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from microstep.components.model import torchvision_model
from microstep.components.model.freezing import freeze_parameters
from microstep.components.model.ghost_norm import GhostBatchNorm
from microstep.config.compose import compose
from microstep.config.experiment import extract_experiment
from microstep.config.overrides import quote_verbatim
from microstep.errors import ConfigError
from microstep.training.build import build_trainer
from microstep.training.builders import build_component

WEIGHTS = ("weight", "bias")
SMALL = ("threads=1", "progress=false", "epochs=1")


class Net(nn.Sequential):
    """A model of the user's own, which knows nothing of freezing."""

    def __init__(self, num_classes: int) -> None:
        norms = (nn.BatchNorm2d(1), nn.BatchNorm2d(1, affine=False), GhostBatchNorm(1, 8))
        super().__init__(*norms, nn.Flatten(), nn.Linear(64, num_classes))


class OwnFreeze(nn.Linear):
    """A model with a `freeze` of its own."""

    def __init__(self, freeze: int) -> None:
        super().__init__(freeze, 1)


def built(*words: str) -> nn.Module:
    return build_component(compose(words), "model", nn.Module, input_shape=(1, 8, 8), num_classes=10)


def trained(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_only_the_others_are_trained() -> None:
    """A regular expression is searched in the model's own names. What it matches asks for no gradient."""
    assert trained(built("model=small_cnn", "model.freeze=features")) == {"head.2.weight", "head.2.bias"}
    assert trained(built("model=mlp", quote_verbatim("model.freeze=^(1|4)"))) == {"7.weight", "7.bias"}
    assert trained(built("model=mlp", "model.freeze=bias")) == {"1.weight", "4.weight", "7.weight"}
    assert trained(built("model=small_cnn")) == {n for n, _ in built("model=small_cnn").named_parameters()}


def own(directory: Path, name: str, *words: str, **facts: int) -> nn.Module:
    """Return a model of this module, built from a yaml of the user's own."""
    (directory / "model").mkdir(exist_ok=True)
    (directory / "model" / "mine.yaml").write_text(f"_target_: {__name__}.{name}\n")
    return build_component(compose(["model=mine", *words], directory), "model", nn.Module, **facts)


def test_a_model_of_ones_own_freezes_likewise(tmp_path) -> None:
    """A model that knows nothing of freezing has the key, too; one with a `freeze` of its own gets what was typed."""
    assert trained(own(tmp_path, "Net", "+model.freeze=4", num_classes=3)) == {
        f"{n}.{w}" for n in "02" for w in WEIGHTS
    }
    assert trained(own(tmp_path, "Net", num_classes=3)) == {f"{n}.{w}" for n in "024" for w in WEIGHTS}
    assert own(tmp_path, "OwnFreeze", "+model.freeze=4").in_features == 4
    with pytest.raises(ConfigError, match=r"model\.freze=x: no such key"):
        own(tmp_path, "Net", "+model.freze=x", num_classes=3)
    with pytest.raises(ConfigError, match=r"^model\.freeze=x: it is not in the yaml; add it with \+model\.freeze=x"):
        own(tmp_path, "Net", "model.freeze=x", num_classes=3)


def test_torchvision_models_have_patterns_and_backbone() -> None:
    """A pattern needs no weights, unlike `backbone`, and is searched in torchvision's names."""
    model = torchvision_model("resnet18", (1, 32, 32), 4, freeze="^(conv1|bn1|layer)")
    assert {name.rpartition("model.")[2] for name in trained(model)} == {"fc.weight", "fc.bias"}


def test_frozen_batch_norm_stays_in_evaluation_mode() -> None:
    """BatchNorm of any kind whose parameters are all frozen stays in evaluation mode, in copies, too. Others do not."""
    net = Net(num_classes=3)
    state = list(net.state_dict())
    freeze_parameters(net, r"0\.|2\.weight")
    for model in (net.train(), copy.deepcopy(net).eval().train()):
        assert [module.training for module in model] == [False, True, True, True, True]
    assert list(net.state_dict()) == state and isinstance(net[0], nn.BatchNorm2d)
    freeze_parameters(net, r"2\.")
    assert not net.train()[2].training and isinstance(net[2], GhostBatchNorm)


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("haed", "no parameter has such a name; the names begin with features, head"),
        ("'head('", r"it is no regular expression: missing \), .*; correct it"),
    ],
)
def test_what_freezes_nothing_is_refused(pattern, reason) -> None:
    """A pattern that matches nothing, or is none, is exit code 2; so is one that leaves nothing to train."""
    with pytest.raises(ConfigError, match=rf"^model\.freeze=\S+: {reason}"):
        built("model=small_cnn", f"model.freeze={pattern}")


def test_a_frozen_part_does_not_change(tmp_path) -> None:
    """Training with weight decay and BatchNorm changes no bit of what is frozen, and all of what is not."""
    words = ("model=resnet18", "model.freeze=layer|conv1|bn1", "batch_size=512")
    trainer = build_trainer(compose([*SMALL, *words]), tmp_path)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.model.train()
    window = next(trainer.loaders.train(epoch=1))
    trainer.step(trainer.model, trainer.optimization.optimizer, window.batches, window.weight)
    after = trainer.model.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"fc.weight", "fc.bias"}


def test_older_runs_are_not_frozen() -> None:
    """Unless a model has always had the key, null is left out of the experiment."""
    assert "freeze" not in extract_experiment(compose(["model=mlp"]))["model"]
    assert "freeze" in extract_experiment(compose(["model=mlp", "model.freeze=bias"]))["model"]
    assert "freeze" in extract_experiment(compose(["model=torchvision"]))["model"]
