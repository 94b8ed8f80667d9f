"""Tests of frozen backbones."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from microstep.components.model import torchvision_model
from microstep.components.model.torchvision_models import FrozenBackbone
from microstep.components.precision import full
from microstep.components.step import SAMStep, StandardStep
from microstep.errors import ConfigError
from tests.components.model.states import core, saved, trained_state
from tests.components.step.windows import CLASSES, CPU, cut, distance, samples, task

MODELS = {"mobilenet_v3_small": {"dropout": 0.0}, "resnet18": {}}
EITHER = pytest.mark.parametrize("name", MODELS)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    """Return a file of weights for each model."""
    directory = tmp_path_factory.mktemp("weights")
    return {name: saved(trained_state(name), directory / f"{name}.pth") for name in MODELS}


def tuned(name: str, file: str, freeze: str | None = "backbone") -> nn.Module:
    """Return a model for small grayscale images in fp64 and training mode, always with the same head."""
    torch.manual_seed(0)
    model = torchvision_model(name, (1, 6, 6), CLASSES, weights=file, freeze=freeze, **MODELS[name])
    return model.double().train()


def stepped(model: nn.Module, sizes: list[int], rho: float = 0.0) -> nn.Module:
    """Return the model after three steps over one window, each followed by an evaluation."""
    job, precision = task(), full(CPU, "float64")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    shared = (precision, job, job.metrics(), 1.0)
    take = SAMStep(*shared, rho) if rho else StandardStep(*shared)
    inputs, targets = samples(sum(sizes))
    for _ in range(3):
        take(model, optimizer, cut(inputs, targets, sizes), float(sum(sizes)))
        model.eval()
        model.train()
    return model


def by_hand(model: nn.Module, count: int) -> nn.Module:
    """Return the model after the same steps, written by hand, over the whole window at once."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    inputs, targets = samples(count)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model


def trained(model: nn.Module) -> Tensor:
    """Return the trained parameters as one vector."""
    return torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])


@EITHER
@pytest.mark.parametrize("rho", [0.0, 0.1], ids=["standard", "sam"])
def test_any_cut_takes_the_step_of_the_whole_window(name, rho, files) -> None:
    """In fp64, windows of 7 + 7 + 2 and of 16 agree to 1e-10, although the backbone has BatchNorm."""
    whole = stepped(tuned(name, files[name]), [16], rho)
    assert distance(trained(stepped(tuned(name, files[name]), [7, 7, 2], rho)), trained(whole)) < 1e-10
    if not rho:
        assert distance(trained(whole), trained(by_hand(tuned(name, files[name]), 16))) < 1e-10


def test_without_freezing_the_cut_is_seen(files) -> None:
    """The test above fails for the same model if it is not frozen."""
    model, file = "resnet18", files["resnet18"]
    cuts = [trained(stepped(tuned(model, file, freeze=None), sizes)) for sizes in ([7, 7, 2], [16])]
    assert distance(*cuts) > 1e-6


@EITHER
def test_nothing_but_the_head_changes(name, files) -> None:
    """Steps with weight decay and momentum change no bit of the backbone's weights and statistics."""
    before = {key: tensor.clone() for key, tensor in tuned(name, files[name]).state_dict().items()}
    after = stepped(tuned(name, files[name]), [7, 7, 2]).state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {key for key in before if before[key].shape[:1] == (CLASSES,)} and len(changed) == 2


@EITHER
def test_batch_norm_stays_in_evaluation_mode(name, files) -> None:
    """Frozen BatchNorm stays in evaluation mode in every mode of the model. Other modules follow the mode."""
    model = tuned(name, files[name])
    for mode in (True, False, True):
        for module in core(model.train(mode)).modules():
            assert module.training is (mode and not isinstance(module, nn.BatchNorm2d))


def test_a_new_model_is_frozen_from_the_start() -> None:
    """Frozen BatchNorm starts in evaluation mode. One with trained parameters does not."""
    model = FrozenBackbone(
        nn.Sequential(nn.BatchNorm2d(1), nn.BatchNorm2d(1, affine=False), nn.BatchNorm2d(1)), ["2.weight"]
    )
    assert [module.training for module in model.model] == [False, False, True]
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["model.2.weight"]


def test_what_can_not_be_frozen_is_refused(files) -> None:
    """A pattern that matches nothing is refused with names, and a backbone without weights with a remedy."""
    with pytest.raises(
        ConfigError, match=r"^model\.freeze=x: no parameter .*; the names begin with conv1, bn1, layer1"
    ):
        torchvision_model("resnet18", (3, 32, 32), 4, weights=files["resnet18"], freeze="x")
    with pytest.raises(ConfigError, match=r"^model\.freeze=backbone: .*random numbers; give model\.weights"):
        torchvision_model("resnet18", (3, 32, 32), 4, freeze="backbone")
