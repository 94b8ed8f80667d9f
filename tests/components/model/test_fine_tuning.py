"""Tests of models with pretrained weights."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import get_model

from microstep.components.model import torchvision_model
from microstep.components.model.pretrained import EmptyParameterMode, find_head_names, pretrained_options
from microstep.config.compose import compose
from microstep.errors import ConfigError, DataError
from microstep.run.weights import WeightsFile
from microstep.training.build import build_trainer
from microstep.training.instantiation import build_component
from tests.components.model.states import CLASSES, HEAD, NAME, core, saved, trained_state

COLOUR, GREY = (3, 32, 32), (1, 32, 32)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    """Return a file with the weights of a trained model."""
    return saved(trained_state(), tmp_path_factory.mktemp("weights") / "trained.pth")


def seeded(*arguments, seed: int = 3, **options) -> nn.Module:
    torch.manual_seed(seed)
    return torchvision_model(*arguments, **options)


def head(model: nn.Module) -> list[torch.Tensor]:
    state = core(model).state_dict()
    return [state[name] for name in sorted(HEAD)]


@pytest.mark.parametrize("classes", [4, CLASSES])
@pytest.mark.parametrize("shape", [COLOUR, GREY], ids=["colour", "grey"])
def test_the_backbone_is_the_files_and_the_head_is_new(weights, shape, classes) -> None:
    """All tensors but the head equal the file's. The head does not, even for the same number of classes."""
    model = torchvision_model(NAME, shape, classes, weights=weights)
    theirs, ours = trained_state(), core(model).state_dict()
    assert list(ours) == list(theirs)
    assert {name for name in ours if not torch.equal(ours[name], theirs[name])} == HEAD
    assert model(torch.randn(2, *shape)).shape == (2, classes)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_head_depends_on_the_seed_alone(weights, tmp_path) -> None:
    """The head and the random state afterwards depend on the seed alone, for any file or none."""
    other = saved({name: tensor + 1 for name, tensor in trained_state().items()}, tmp_path / "other.pt")
    models, numbers = [], []
    for options in ({"weights": weights}, {"weights": other}, {"weights": weights, "load_weights": False}, {}):
        models.append(seeded(NAME, COLOUR, 4, **options))
        numbers.append(torch.rand(3).tolist())
    heads = list(map(head, models))
    assert all(torch.equal(one, first) for tensors in heads for one, first in zip(tensors, heads[0], strict=True))
    assert all(number == numbers[0] for number in numbers)
    assert not torch.equal(head(seeded(NAME, COLOUR, 4, seed=4, weights=weights))[1], heads[0][1])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", ["fc.weight", "fc.bias"]),
        (NAME, ["classifier.3.weight", "classifier.3.bias"]),
        ("squeezenet1_0", ["classifier.1.weight", "classifier.1.bias"]),
        ("densenet121", ["classifier.weight", "classifier.bias"]),
        ("vit_b_16", ["heads.head.weight", "heads.head.bias"]),
        ("regnet_y_400mf", ["fc.weight", "fc.bias"]),
        ("maxvit_t", ["classifier.5.weight"]),
        ("swin_t", ["head.weight", "head.bias"]),
        ("googlenet", ["fc.weight", "fc.bias"]),
        ("inception_v3", ["fc.weight", "fc.bias"]),
    ],
)
def test_the_head_is_what_depends_on_the_number_of_classes(name, expected) -> None:
    """Linear layers and convolutions are found, with or without a bias. The random state is unchanged."""
    build = partial(get_model, name, **{"init_weights": True} if name in ("googlenet", "inception_v3") else {})
    build = partial(build, **pretrained_options(name))
    with EmptyParameterMode():
        model = build(num_classes=11)
    before = torch.get_rng_state()
    assert find_head_names(model, build, 11) == set(expected)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"model": state, "epoch": 3},
        lambda state: {"state_dict": state},
        lambda state: {"model": {f"model.{name}": tensor for name, tensor in state.items()}},
        lambda state: {f"module.model.model.{name}": tensor for name, tensor in state.items()},
        lambda state: {name: tensor for name, tensor in state.items() if name not in HEAD},
        lambda state: {name: tensor for name, tensor in state.items() if "num_batches" not in name},
    ],
    ids=["model", "state_dict", "wrapped", "twice", "headless", "before BatchNorm counted"],
)
def test_a_state_dict_is_found_where_checkpoints_keep_it(wrap, tmp_path) -> None:
    """A state dict is found by itself or under a key, with or without a wrapper's prefix, with or without a head."""
    model = torchvision_model(NAME, COLOUR, 4, weights=saved(wrap(trained_state()), tmp_path / "weights.pt"))
    ours = dict(core(model).named_parameters())
    assert all(
        torch.equal(ours[name], tensor) for name, tensor in trained_state().items() if name in ours.keys() - HEAD
    )


@pytest.mark.parametrize("shape", [COLOUR, GREY], ids=["colour", "grey"])
def test_a_checkpoint_of_a_run_is_such_a_file(weights, shape, tmp_path) -> None:
    """A run's checkpoint is accepted as a file of weights, for MNASNet, too."""
    for name in (NAME, "mnasnet0_5"):
        first = seeded(name, shape, 5)
        file = saved({"model": first.state_dict(), "epoch": 1}, tmp_path / "epoch-0001.pt")
        second = core(seeded(name, COLOUR, 5, seed=4, weights=file)).state_dict()
        same = {key for key, tensor in core(first).state_dict().items() if torch.equal(tensor, second[key])}
        assert second.keys() - same <= {"classifier.1.weight", *HEAD}


@pytest.mark.parametrize("shape", [COLOUR, GREY], ids=["colour", "grey"])
def test_the_weights_that_a_run_writes_for_others_are_such_a_file(shape, tmp_path) -> None:
    """A run's model.safetensors is accepted like its checkpoint, for MNASNet, too."""
    for name in (NAME, "mnasnet0_5"):
        first = seeded(name, shape, 5)
        WeightsFile(tmp_path / "model.safetensors", {}).write(first, 1, {})
        models = [
            seeded(name, COLOUR, 4, seed=4, weights=file)
            for file in (str(tmp_path / "model.safetensors"), saved(first.state_dict(), tmp_path / "checkpoint.pt"))
        ]
        states = [core(model).state_dict() for model in models]
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[1])
        theirs = core(first).state_dict()
        apart = {key for key in states[0] if not torch.equal(states[0][key], theirs[key])}
        assert {key.rpartition(".")[0] for key in apart} == {list(theirs)[-1].rpartition(".")[0]}


def test_mnasnet_is_loaded_from_a_plain_dictionary_too(tmp_path) -> None:
    """MNASNet needs the version in a state dict's metadata, which a plain dict lacks."""
    file = saved(dict(trained_state("mnasnet0_5")), tmp_path / "weights.pt")
    assert torchvision_model("mnasnet0_5", COLOUR, 4, weights=file)(torch.randn(2, *COLOUR)).shape == (2, 4)


def test_densenets_former_names_are_understood(tmp_path) -> None:
    """torchvision's densenet files have names like `norm.1` for `norm1`."""
    state, former = trained_state("densenet121"), OrderedDict()
    for name, tensor in state.items():
        for part in ("norm", "conv"):
            name = name.replace(f".{part}1.", f".{part}.1.").replace(f".{part}2.", f".{part}.2.")
        former[name] = tensor
    assert "features.denseblock1.denselayer1.norm.1.weight" in former
    model = core(torchvision_model("densenet121", COLOUR, 4, weights=saved(former, tmp_path / "weights.pth")))
    last = "features.denseblock4.denselayer16.conv2.weight"
    assert torch.equal(model.state_dict()[last], state[last])


def test_googlenet_is_made_as_torchvision_makes_it_from_weights(tmp_path) -> None:
    """The model transforms its input as the weights need it, and ignores the file's auxiliary heads."""
    state = trained_state("googlenet", aux_logits=True, init_weights=False)
    assert any(name.startswith("aux1.") for name in state)
    model = torchvision_model("googlenet", (3, 64, 64), 4, weights=saved(state, tmp_path / "weights.pth"))
    assert core(model).transform_input
    assert not any("aux" in name for name in core(model).state_dict())
    assert model.train()(torch.randn(2, 3, 64, 64)).shape == (2, 4)


@pytest.mark.parametrize(("name", "size"), [("vit_b_16", 224), ("vit_h_14", 518)])
def test_a_vision_transformer_has_the_size_of_its_weights(name, size) -> None:
    """A vision transformer takes the image size of its weights."""
    assert pretrained_options(name) == {"image_size": size}


def test_the_normalisation_is_that_of_the_weights(weights) -> None:
    """The normalization has three channels, one for grayscale images, and is None if it is unknown."""
    theirs = saved(trained_state(), Path(weights).parent / "mobilenet_v3_small-047dcff4.pth")  # torchvision's name
    assert torchvision_model(NAME, COLOUR, 4, weights=theirs, freeze="backbone").normalization == IMAGENET
    (mean,), (std,) = torchvision_model(NAME, GREY, 4, weights=theirs).normalization
    assert torchvision_model(NAME, COLOUR, 4, weights=weights).normalization is None
    assert (mean, std) == pytest.approx((0.449, 0.226), abs=1e-12)
    assert torchvision_model(NAME, COLOUR, 4).normalization is None
    assert torchvision_model(NAME, GREY, 4).normalization is None


@pytest.mark.parametrize("named", ["DEFAULT", "nowhere/weights.pth"])
@pytest.mark.parametrize("shape", [COLOUR, GREY], ids=["colour", "grey"])
def test_weights_may_be_left_unread(named, shape, weights, tmp_path, monkeypatch) -> None:
    """`load_weights=False` reads neither disk nor network. The model is otherwise the same."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch, "load", partial(pytest.fail, "read"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", partial(pytest.fail, "fetched"))
    config = compose(["model=torchvision", f"model.weights={named}", "model.freeze=backbone"])
    unread = build_component(config, "model", nn.Module, input_shape=shape, num_classes=4, load_weights=False)
    monkeypatch.undo()
    read = torchvision_model(NAME, shape, 4, weights=weights, freeze="backbone")
    assert len(unread.normalization[0]) == shape[0]
    facts = [{n: (t.shape, t.requires_grad) for n, t in m.state_dict(keep_vars=True).items()} for m in (unread, read)]
    assert facts[0] == facts[1]
    assert not list(tmp_path.iterdir())


def test_the_former_option_is_refused() -> None:
    """torchvision's former option `pretrained` is refused."""
    with pytest.raises(ConfigError, match=r"model\.pretrained=True: .*; give model\.weights=DEFAULT"):
        torchvision_model(NAME, COLOUR, 4, load_weights=False, pretrained=True)


class Evil:
    """Makes a directory when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.mkdir, (self.marker,)


def refusal(file: str, name: str = NAME) -> str:
    """Return the error line, which names the file."""
    with pytest.raises(DataError) as caught:
        torchvision_model(name, COLOUR, 4, weights=file)
    line = str(caught.value)
    assert line.startswith(f"model.weights={file}: ")
    assert "\n" not in line
    return line


def test_code_in_a_file_is_not_run(tmp_path) -> None:
    """A file that holds more than tensors is refused, without advice to trust it."""
    file = saved({**trained_state(), "evil": Evil(tmp_path / "marker")}, tmp_path / "evil.pth")
    line = refusal(file)
    assert not (tmp_path / "marker").exists()
    assert "code is not run" in line and "weights_only" not in line


@pytest.mark.parametrize("content", [b"", b"no weights", slice(-200)], ids=["empty", "text", "cut off"])
def test_a_damaged_file_is_refused(content, weights, tmp_path) -> None:
    """Empty, text and truncated files are refused."""
    cut_off = Path(weights).read_bytes()[content] if isinstance(content, slice) else content
    (tmp_path / "weights.pth").write_bytes(cut_off)
    assert "it is damaged, or holds more than tensors" in refusal(str(tmp_path / "weights.pth"))


@pytest.mark.parametrize("content", [b"", b"no weights at all", slice(-200), slice(40)], ids=repr)
def test_a_damaged_safetensors_file_is_refused(content, tmp_path) -> None:
    """Empty, text and truncated safetensors files are refused with the same line."""
    file = tmp_path / "weights.safetensors"
    save_file(trained_state(), file)
    file.write_bytes(file.read_bytes()[content] if isinstance(content, slice) else content)
    assert "it is damaged, or holds more than tensors" in refusal(str(file))


def test_code_is_not_run_whatever_the_suffix(tmp_path) -> None:
    """A pickle that is called .safetensors is no safetensors file."""
    refusal(saved({**trained_state(), "evil": Evil(tmp_path / "marker")}, tmp_path / "evil.safetensors"))
    assert not (tmp_path / "marker").exists()


def test_a_safetensors_file_of_others_is_understood(tmp_path, monkeypatch) -> None:
    """Without metadata, and with the prefix that some trainers leave, as any other file; by any version of torch."""
    monkeypatch.setattr(torch, "load", partial(pytest.fail, "only later versions of it can"))
    save_file({f"module.{name}": tensor for name, tensor in trained_state().items()}, tmp_path / "weights.safetensors")
    model = torchvision_model(NAME, COLOUR, 4, weights=str(tmp_path / "weights.safetensors"))
    ours = core(model).state_dict()
    assert {name for name, tensor in trained_state().items() if not torch.equal(ours[name], tensor)} == HEAD
    save_file({"fc.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    assert "it doesn't fit mobilenet_v3_small: it lacks" in refusal(str(tmp_path / "other.safetensors"))


@pytest.mark.parametrize(
    "content",
    [
        {},
        [1, 2],
        torch.zeros(3),
        {"model": 3},
        {"fc.weight": torch.zeros(1, device="meta")},
        {"fc": {"weight": torch.zeros(1)}},
    ],
)
def test_what_is_no_state_dict_is_refused(content, tmp_path) -> None:
    """Tensors with names are asked for, and how to make such a file is said."""
    line = refusal(saved(content, tmp_path / "weights.pth"))
    assert "it holds no state dict; give a file made by torch.save(model.state_dict()" in line


def test_a_missing_file_is_refused(tmp_path) -> None:
    """A directory is no file either."""
    for place in (tmp_path, tmp_path / "weights.pth"):
        assert f"there is no file {place}; give a file of weights, or DEFAULT" in refusal(str(place))


def test_another_architectures_weights_are_refused(weights, tmp_path) -> None:
    """The first missing, unexpected or misshapen tensor is named, with the number of further ones."""
    assert "it doesn't fit mobilenet_v3_large: features." in refusal(weights, "mobilenet_v3_large")
    assert " × " in refusal(weights, "mobilenet_v3_large")
    assert "it lacks conv1.weight and 99 more, it has features.0.0.weight and 243 more besides;" in refusal(
        weights, "resnet18"
    )
    state = trained_state()
    first = state.pop("features.0.0.weight")
    assert "it lacks features.0.0.weight; set model.name" in refusal(saved(state, tmp_path / "less.pt"))
    state |= {"features.0.0.weight": first, "new": first}
    assert "it has new besides; set model.name" in refusal(saved(state, tmp_path / "more.pt"))


def test_through_the_config_a_model_is_fine_tuned(weights, tmp_path) -> None:
    """Typed on the command line it is one key; what is refused comes out as it is."""
    words = ["model=torchvision", f"model.weights={weights}", "model.freeze=backbone", "threads=1"]
    trainer = build_trainer(compose(words), tmp_path / "run")
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    assert [tuple(p.shape) for p in trained] == [(10, 1024), (10,)]
    with pytest.raises(DataError, match="there is no file"):
        build_trainer(compose([*words, "model.weights=nowhere.pt"]), tmp_path / "other")
