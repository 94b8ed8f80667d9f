"""Tests of the shapes and options of all models."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import get_model_builder, list_models

from microstep.components.model import ResNet9, SmallCNN, mlp, resnet18, torchvision_model
from microstep.components.model.resnet9 import Residual
from microstep.config.compose import compose
from microstep.config.search_path import CONF
from microstep.errors import ConfigError
from microstep.training.build import build_trainer
from microstep.training.instantiation import build_component

ABSENT = set() if find_spec("timm") else {"timm"}
OPTIONS = sorted({file.stem for file in (CONF / "model").glob("*.yaml")} - ABSENT)
GREY_AND_COLOUR = pytest.mark.parametrize("channels", [1, 3])


def built(option: str, channels: int, classes: int, side: int = 32) -> nn.Module:
    """Return a model built as in a run, from its yaml and the facts of the dataset."""
    config = compose([f"model={option}"])
    return build_component(config, "model", nn.Module, input_shape=(channels, side, side), num_classes=classes)


def test_the_shipped_models():
    """The documented models exist."""
    assert {"mlp", "resnet9", "resnet18", "small_cnn", "torchvision"} <= set(OPTIONS)


@pytest.mark.parametrize("option", OPTIONS)
@GREY_AND_COLOUR
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_every_model_gives_a_logit_a_class(option, channels, training):
    """N × channels × 32 × 32 inputs give finite N × num_classes outputs in training and evaluation mode."""
    outputs = built(option, channels, 7).train(training)(torch.randn(4, channels, 32, 32))
    assert outputs.shape == (4, 7)
    assert outputs.isfinite().all()


@pytest.mark.parametrize("option", ["mlp", "small_cnn", "resnet9", "resnet18"])
def test_the_models_for_small_images_take_the_digits(option):
    """Images of 8 × 8 are large enough."""
    assert built(option, 1, 10, side=8)(torch.randn(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize("option", OPTIONS)
def test_the_output_depends_on_the_input_and_the_last_layer_learns(option):
    """Two images get different logits, and the first and last parameters get a gradient."""
    model = built(option, 1, 5).eval()
    outputs = model(torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert not torch.equal(outputs[0], outputs[1])
    outputs.square().sum().backward()
    parameters = list(model.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in (parameters[0], parameters[-1]))


def test_resnet18_keeps_small_images_at_full_size():
    """With the stem for small images, the first stage gets 32 × 32 inputs, and the last returns 4 × 4."""
    model, seen = resnet18((3, 32, 32), 10).eval(), {}
    for name in ("layer1", "layer4"):
        stage = getattr(model, name)
        stage.register_forward_hook(lambda _m, inputs, output, name=name: seen.update({name: (inputs[0], output)}))
    model(torch.randn(1, 3, 32, 32))
    assert seen["layer1"][0].shape == seen["layer1"][1].shape == (1, 64, 32, 32)
    assert seen["layer4"][1].shape == (1, 512, 4, 4)


def test_resnet18_is_resnet18():
    """The model has 11,173,962 parameters for ten classes of color images, as in the literature."""
    assert sum(p.numel() for p in resnet18((3, 32, 32), 10).parameters()) == 11_173_962


def test_resnet9_is_that_of_dawnbench():
    """The model has 6,573,120 parameters, logits are scaled, and a block whose layers return 0 passes on its input."""
    model = ResNet9((3, 32, 32), 10).eval()
    assert sum(p.numel() for p in model.parameters()) == 6_573_120
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(images), 0.125 * model.head(model.features(images)))
    block = next(module for module in model.modules() if isinstance(module, Residual))
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    assert torch.equal(block(inputs := torch.randn(2, 128, 4, 4)), inputs)


@pytest.mark.parametrize("norm", ["group", "ghost"])
def test_resnet9_takes_norms_that_are_exact_under_accumulation(norm):
    """In training mode, the logits of two halves of a batch are those of the batch."""
    model = ResNet9((1, 8, 8), 10, width=32, norm=norm, norm_samples=2).double().train()
    images = torch.randn(4, 1, 8, 8, dtype=torch.float64)
    halves = torch.cat([model(half) for half in images.chunk(2)])
    torch.testing.assert_close(model(images), halves, rtol=1e-10, atol=1e-10)


def test_group_norm_leaves_no_batch_norm():
    """`norm=group` leaves no BatchNorm. The default has some."""
    kinds = {norm: {type(m) for m in resnet18((1, 8, 8), 10, norm).modules()} for norm in ("group", "batch")}
    assert nn.BatchNorm2d not in kinds["group"]
    assert nn.GroupNorm in kinds["group"]
    assert nn.BatchNorm2d in kinds["batch"]


def test_with_group_norm_a_sample_does_not_see_its_neighbours():
    """In training mode, the logits of an image alone equal those in a batch."""
    model = resnet18((1, 8, 8), 10, norm="group").double().train()
    pictures = torch.randn(4, 1, 8, 8, dtype=torch.float64)
    alone = torch.cat([model(picture) for picture in pictures.split(1)])
    torch.testing.assert_close(model(pictures), alone, rtol=1e-10, atol=1e-10)


def test_another_norm_is_refused_with_the_options():
    """A wrong option in the config exits with 2 and one line that names the options."""
    with pytest.raises(ValueError, match=r"norm=layer is unknown: the options are batch, group"):
        resnet18((1, 8, 8), 10, norm="layer")


def test_small_cnn_has_neither_normalisation_nor_dropout():
    """No module's outputs depend on the rest of the batch."""
    kinds = {type(module).__name__ for module in SmallCNN((1, 8, 8), 10).modules()}
    assert not [kind for kind in kinds if "Norm" in kind or "Dropout" in kind]
    assert sum(isinstance(module, nn.Conv2d) for module in SmallCNN((1, 8, 8), 10).modules()) == 3


@pytest.mark.parametrize("hidden", [[], [16], [32, 16, 8]])
def test_the_mlp_has_the_layers_asked_for(hidden):
    """Layers have the given widths, with ReLU between them and none after the last."""
    model = mlp((2, 3, 4), 5, hidden)
    widths = [(layer.in_features, layer.out_features) for layer in model if isinstance(layer, nn.Linear)]
    assert widths == list(zip([24, *hidden], [*hidden, 5], strict=True))
    assert isinstance(model[-1], nn.Linear)
    assert sum(isinstance(layer, nn.ReLU) for layer in model) == len(hidden)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "resnet18", "googlenet"])
@GREY_AND_COLOUR
def test_torchvisions_models_by_name(name, channels):
    """Color and grayscale images give one tensor of logits in both modes, without auxiliary outputs."""
    model = torchvision_model(name, (channels, 96, 96), 6)
    for training in (True, False):
        assert model.train(training)(torch.randn(2, channels, 96, 96)).shape == (2, 6)


def test_a_grey_picture_is_shown_as_its_own_three_channels():
    """A grayscale image gives the logits of a color image with three equal channels."""
    grey = torchvision_model("mobilenet_v3_small", (1, 32, 32), 4).eval()
    picture = torch.randn(1, 1, 32, 32)
    assert torch.equal(grey(picture), grey.model(picture.repeat(1, 3, 1, 1)))


def test_options_reach_torchvisions_constructor():
    """Further options in the config reach the model's constructor."""
    model = torchvision_model("mobilenet_v3_small", (3, 32, 32), 4, dropout=0.625)
    assert 0.625 in {module.p for module in model.modules() if isinstance(module, nn.Dropout)}


@pytest.mark.parametrize(("name", "nearest"), [("resnet81", "resnet18"), ("mobilenetv3_small", "mobilenet_v3_small")])
def test_a_wrong_name_is_refused_with_the_nearest(name, nearest):
    """An unknown name is refused with similar names."""
    with pytest.raises(ValueError, match=rf"name={name} is not .* nearest are .*\b{nearest}\b"):
        torchvision_model(name, (3, 32, 32), 4)


def test_a_model_for_another_purpose_is_refused():
    """torchvision's segmentation models are refused."""
    with pytest.raises(ValueError, match="name=fcn_resnet50 is not one of torchvision's classification models"):
        torchvision_model("fcn_resnet50", (3, 32, 32), 4)


@pytest.mark.parametrize(
    ("typed", "said"),
    [(["model=torchvision", "model.name=resnet81"], "resnet18"), (["model=resnet18", "model.norm=layer"], "group")],
)
def test_through_the_config_it_is_one_line(typed, said, tmp_path):
    """A constructor's ValueError exits with 2, its message and the config key."""
    with pytest.raises(ConfigError, match=said) as caught:
        build_trainer(compose([*typed, "threads=1"]), tmp_path / "run")
    assert caught.value.exit_code == 2
    assert str(caught.value).endswith("; see the keys of conf/model/")
    assert len(str(caught.value).splitlines()) == 1


def test_a_model_has_no_auxiliary_heads_unless_asked_for():
    """Every parameter of GoogLeNet gets a gradient; `model.aux_logits=true` builds the heads."""
    words, facts = ["model=torchvision", "model.name=googlenet"], {"input_shape": (3, 15, 15), "num_classes": 5}
    model = build_component(compose(words), "model", nn.Module, **facts)
    model(torch.randn(2, 3, 15, 15)).square().sum().backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]
    typed = compose([*words, "model.aux_logits=true"])
    assert len(build_component(typed, "model", nn.Module, **facts).state_dict()) > len(model.state_dict())


SMALLEST = {
    "alexnet": 63,
    "convnext_tiny": 32,
    "densenet121": 29,
    "efficientnet_b0": 1,
    "efficientnet_v2_s": 1,
    "googlenet": 15,
    "inception_v3": 75,
    "maxvit_t": 221,
    "mnasnet0_5": 1,
    "mobilenet_v2": 1,
    "mobilenet_v3_small": 1,
    "regnet_x_400mf": 1,
    "regnet_y_400mf": 1,
    "resnet18": 1,
    "resnext50_32x4d": 1,
    "shufflenet_v2_x0_5": 1,
    "squeezenet1_0": 21,
    "squeezenet1_1": 17,
    "swin_t": 4,
    "swin_v2_t": 4,
    "vgg11": 32,
    "vgg11_bn": 32,
    "vit_b_16": 16,
    "vit_b_32": 32,
    "wide_resnet50_2": 1,
}


def test_every_family_has_its_smallest_images():
    """Each module of torchvision.models that has a classification model is in the table."""
    modules = {name: get_model_builder(name).__module__ for name in list_models(module=torchvision.models)}
    assert {modules[name] for name in SMALLEST} == set(modules.values())


FEW = [name if name == "squeezenet1_1" else pytest.param(name, marks=pytest.mark.long) for name in SMALLEST]


@pytest.mark.parametrize("name", FEW)
def test_a_model_trains_on_the_smallest_images_it_takes(name):
    """Every parameter gets a finite gradient; a pixel less is refused before training with the size."""
    side = SMALLEST[name]
    model = built_by_name(name, side).train()
    model(torch.randn(2, 3, side, side)).square().sum().backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    if side > 1:
        with pytest.raises(ConfigError, match=f"are {side} × {side}; set dataset.size={side} ") as caught:
            built_by_name(name, side - 1)
        assert caught.value.exit_code == 2


def built_by_name(name: str, side: int) -> nn.Module:
    facts = {"input_shape": (3, side, side), "num_classes": 5}
    return build_component(compose(["model=torchvision", f"model.name={name}"]), "model", nn.Module, **facts)


@pytest.mark.long
def test_a_vision_transformer_takes_the_size_of_the_data():
    """Any multiple of the patch size will do, without a further key; other sizes are refused."""
    model = built_by_name("vit_b_32", 64).eval()
    assert model(torch.randn(1, 3, 64, 64)).shape == (1, 5)
    with pytest.raises(ConfigError, match=r"it can't take images of 40 × 40, the smallest that it takes are 32 × 32"):
        built_by_name("vit_b_32", 40)


def test_checking_the_image_size_changes_nothing():
    """Weights, buffers and the random state are those of torchvision's model after the same seed."""
    torch.manual_seed(0)
    model, after = torchvision_model("squeezenet1_1", (3, 17, 17), 5).model, torch.get_rng_state()
    torch.manual_seed(0)
    plain = torchvision.models.squeezenet1_1(num_classes=5)
    assert torch.equal(after, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), plain.state_dict().values(), strict=True))
