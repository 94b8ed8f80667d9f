"""Pretrained weights get the inputs that they were trained on: as typed, as their file says, or as torchvision says."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from torch import nn

from microstep.components.model import torchvision_model
from microstep.components.model.metadata import parse_normalization
from microstep.config.allowlist import ALLOW_ALL
from microstep.config.compose import compose
from microstep.errors import DataError
from microstep.evaluation.evaluate import load_run
from microstep.run.checkpoints.checkpoints import Checkpoints
from microstep.run.weights import WeightsFile
from microstep.training.build import build_trainer
from microstep.training.builders import build_partial_components
from microstep.training.normalization import is_typed
from microstep.training.resume import resume

NAME = "squeezenet1_1"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
THEIRS = {"mean": "[0.1, 0.2, 0.6]", "std": "[0.5, 0.6, 0.7]"}
DATA = ("dataset=synthetic", "dataset.samples=60", "dataset.val_samples=20", "dataset.test_samples=20", "batch_size=20")
WORDS = ("model=torchvision", f"model.name={NAME}", *DATA, "threads=1", "progress=false")


def exported(directory: Path, metadata: dict[str, str]) -> Path:
    """Write a model.safetensors with these metadata, and return the file."""
    file = directory / "model.safetensors"
    WeightsFile(file, metadata).write(torchvision_model(NAME, (3, 32, 32), 10), 1, {})
    return file


def normalization_of(*words: str) -> tuple[tuple[float, ...], tuple[float, ...], str]:
    """Return what a new run with these words normalizes by, and where it is from."""
    found = build_partial_components(compose([*WORDS, *words])).dataset.normalization
    return found.mean, found.std, found.origin


@pytest.mark.parametrize(
    ("metadata", "channels", "expected"),
    [
        (THEIRS, 3, ((0.1, 0.2, 0.6), (0.5, 0.6, 0.7))),
        (THEIRS, 1, ((pytest.approx(0.3),), (pytest.approx(0.6),))),
        ({"mean": "[0.3]", "std": "[0.4]"}, 3, ((0.3,) * 3, (0.4,) * 3)),
        ({"mean": "[0.3]", "std": "[0.4]", "scale": "16.0"}, 1, ((0.3,), (0.4,))),
    ],
)
def test_a_file_of_weights_says_its_normalization(metadata, channels, expected, tmp_path, caplog) -> None:
    """The values in a run's model.safetensors are used, averaged for gray images and repeated for color images."""
    file = exported(tmp_path, metadata)
    found = normalization_of(f"model.weights={file}", f"dataset.channels={channels}")
    assert found == (*expected, "the weights' own")
    assert caplog.messages == []


def test_typed_values_come_first(tmp_path, caplog) -> None:
    """`dataset.mean` and `dataset.std` replace what the file says, each by itself, and are checked."""
    file, mean, std = exported(tmp_path, THEIRS), "+dataset.mean=[0.4,0.4,0.4]", "+dataset.std=[0.3,0.3,0.3]"
    assert normalization_of(f"model.weights={file}", mean, std) == ((0.4,) * 3, (0.3,) * 3, "given")
    found = normalization_of(f"model.weights={file}", mean)
    assert found == ((0.4,) * 3, (0.5, 0.6, 0.7), "given, and the weights' own")
    assert caplog.messages == []
    with pytest.raises(DataError, match=r"dataset\.std=\[.*\]: a value is not positive"):
        normalization_of(f"model.weights={file}", "+dataset.std=[0.3,0.3,0.0]")


@pytest.mark.parametrize(("option", "words", "typed"), [
    ("cifar10", [], False), ("mnist", [], False), ("fashion_mnist", [], False), ("cifar100", [], False),
    ("digits", [], False), ("cifar10", ["dataset.mean=[0,0,0]"], True), ("digits", ["dataset.std=[0.4]"], True),
])  # fmt: skip
def test_the_published_values_of_a_data_set_are_not_typed(option, words, typed) -> None:
    """The mean and deviation in microstep's own yamls give way to those of the weights; typed ones don't."""
    assert is_typed(compose([f"dataset={option}", *words]).dataset) is typed


ODD = (("[0]", "[0]"), ("[0]", "[1,1]"), ("[NaN]", "[1]"), ("[1e999]", "[1]"), ("[]", "[]"), ("[" * 9999, "[1]"))
BAD = [{}, {"mean": "[0.1]"}, {"mean": "x", "std": "[1]"}, {"mean": "0", "std": "1"}, {"mean": 0, "std": 1}]
BAD += [{"mean": mean, "std": std} for mean, std in ODD]


@pytest.mark.parametrize("metadata", BAD, ids=range(len(BAD)))
def test_malformed_values_are_unknown(metadata) -> None:
    """Mean and deviation that are missing, no numbers, not finite, not positive or not as many are none at all."""
    assert parse_normalization(metadata) is None


class Own(nn.Flatten):
    """A model of one's own, with weights that expect a normalization."""

    normalization = ((0.2, 0.2, 0.2), (0.3, 0.3, 0.3))

    def __init__(self, input_shape: list[int], width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(input_shape[0]))


def test_a_model_of_ones_own_says_its_normalization(tmp_path) -> None:
    """The attribute `normalization` of any model is used, and typed values replace it."""
    own, mean = "model._target_=tests.training.test_normalization.Own", "+dataset.mean=[0.4,0.4,0.4]"
    words = [*DATA, own]
    for typed, expected in (((), (0.2,) * 3), ((mean,), (0.4,) * 3)):
        found = build_partial_components(compose([*words, *typed])).dataset.normalization
        assert (found.mean, found.std) == (expected, (0.3,) * 3)


def test_unknown_normalization_is_the_data_sets_and_is_told(tmp_path, caplog) -> None:
    """If the file doesn't say it, the training images' is used, and one line says so and what to type."""
    file = exported(tmp_path, {})
    assert normalization_of(f"model.weights={file}")[2] == "exact, of 40 training images"
    (line,) = caplog.messages
    assert line.startswith(f"model.weights={file}: the file doesn't say which mean and standard deviation")
    typed = ("+dataset.mean=[0.4,0.4,0.4]", "+dataset.std=[0.3,0.3,0.3]")
    assert normalization_of(f"model.weights={file}", *typed) == ((0.4,) * 3, (0.3,) * 3, "given")
    assert caplog.messages == [line]


def test_a_run_keeps_its_normalization_without_the_file(tmp_path) -> None:
    """Evaluating and resuming use what the run began with, although the file of weights is another one since."""
    file = exported(tmp_path, THEIRS)
    words = [f"model.weights={file}", "epochs=1", "scheduler=constant"]
    results = build_trainer(compose([*WORDS, *words]), tmp_path / "run").fit()
    exported(tmp_path, {"mean": "[0.9]", "std": "[0.9]"})
    for checkpoint in ("best", "model.safetensors"):
        components, _ = load_run(tmp_path / "run", ALLOW_ALL, None, checkpoint)
        assert components.dataset.normalization.mean == (0.1, 0.2, 0.6)
    file.unlink()
    trainer = resume(tmp_path / "run", ["epochs=2"])
    assert trainer.components.dataset.normalization.std == (0.5, 0.6, 0.7)
    assert json.loads(trainer.weights.metadata["mean"]) == [0.1, 0.2, 0.6]
    assert trainer.fit().optimizer_steps == 2 * results.optimizer_steps


def test_a_run_of_0_1_0_keeps_imagenets(tmp_path) -> None:
    """Runs whose checkpoints record nothing were trained with torchvision's values, whatever their file said."""
    words = [f"model.weights={exported(tmp_path, THEIRS)}", "epochs=1", "+dataset.mean=[0.4,0.4,0.4]"]
    build_trainer(compose([*WORDS, *words]), tmp_path / "run").fit()
    manifest = tmp_path / "run" / "checkpoints" / "manifest.json"
    entries = json.loads(manifest.read_text())
    file = manifest.parent / entries["best"]["file"]
    state = Checkpoints(manifest.parent).load("best")
    torch.save({key: value for key, value in state.items() if key != "metadata"}, file)
    changed = {"sha256": sha256(file.read_bytes()).hexdigest(), "bytes": file.stat().st_size}
    manifest.write_text(json.dumps({name: entry | changed for name, entry in entries.items()}))
    components, _ = load_run(tmp_path / "run", ALLOW_ALL, None, "best")
    assert (components.dataset.normalization.mean, components.dataset.normalization.std) == IMAGENET
