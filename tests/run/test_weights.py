"""model.safetensors: a run's best weights, which need nothing but the file to be used."""

from __future__ import annotations

import csv
import json
import logging
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors import safe_open
from safetensors.torch import load, load_file
from sklearn.datasets import load_digits
from torch import nn
from torchvision.models import get_model

from microstep.components.dataset.decoding import FITS
from microstep.components.model import torchvision_model
from microstep.components.model.torchvision_models import load_state
from microstep.config.allowlist import ALLOW_ALL
from microstep.config.compose import compose
from microstep.config.experiment import public_experiment
from microstep.errors import StorageError
from microstep.evaluation.evaluate import evaluate_run
from microstep.run.checkpoints.checkpoints import Checkpoints
from microstep.run.weights import WeightsFile, serialize_weights, weights_file
from microstep.training.build import build_trainer
from microstep.utils.progress_bar import ProgressBars
from tests.components.dataset import folders
from tests.conftest import files_limited, fit
from tests.tasks.tensors import split_in_three
from tests.tasks.test_tasks import CONF, REGRESSION
from tests.tasks.weights import last_weights

CPU = torch.device("cpu")
TASK = {"_target_": "microstep.components.task.Classification", "class_weights": None, "label_smoothing": 0.1}
TASK |= {"loss": None, "metrics": None}


def opened(file: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """Return metadata and tensors, read with safetensors alone."""
    with safe_open(file, "pt") as content:
        return content.metadata(), {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118


def written(model: nn.Module, directory: Path) -> Path:
    """Write a model's weights and return the file."""
    file = directory / "model.safetensors"
    WeightsFile(file, {"format": "pt"}).write(model, 1, {})
    return file


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Return whether two states have the same names, dtypes, shapes and bits."""
    return one.keys() == other.keys() and all(
        (one[name].dtype, one[name].shape) == (tensor.dtype, tensor.shape) and torch.equal(one[name], tensor)
        for name, tensor in other.items()
    )


def test_anybody_can_use_the_weights_with_what_the_file_says(trained) -> None:
    """Built, loaded and fed from the metadata alone, the model predicts what the run's report says, to the digit."""
    about, state = opened(trained / "model.safetensors")
    names, mean, std = (json.loads(about[key]) for key in ("class_names", "mean", "std"))
    shape = json.loads(about["input_shape"])
    model = instantiate(json.loads(about["architecture"]), input_shape=shape, num_classes=len(names), _convert_="all")
    model.load_state_dict(state)
    with (trained / "reports" / "test" / "predictions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    pixels = torch.tensor(load_digits().images[[int(row["index"]) for row in rows]], dtype=torch.float32)[:, None]
    assert list(pixels.shape[1:]) == shape
    with torch.inference_mode():
        outputs = model.eval()((pixels / float(about["scale"]) - mean[0]) / std[0])
    confidence, found = outputs.softmax(1).max(1)
    assert [names[i] for i in found] == [row["prediction"] for row in rows]
    assert confidence.tolist() == pytest.approx([float(row["confidence"]) for row in rows], abs=2e-6)


def test_the_file_says_what_it_is(trained) -> None:
    """Every key, as documented, is text; lists and numbers are JSON, and those of validation are run.json's."""
    about, _ = opened(trained / "model.safetensors")
    record = json.loads((trained / "run.json").read_text())
    mean, std = json.loads(about.pop("mean")), json.loads(about.pop("std"))
    assert (mean, std) == ([pytest.approx(0.3055, abs=1e-4)], [pytest.approx(0.3761, abs=1e-4)])
    assert json.loads(about.pop("metrics")) == record["metrics"]["val"]
    assert 0.05 <= json.loads(about.pop("fitted"))["temperature"][0] <= 20
    content = (trained / "model.safetensors").read_bytes()
    assert about.pop("sha256") == sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()
    assert about == {
        "format": "pt",
        "dataset": "digits",
        "class_names": json.dumps([str(digit) for digit in range(10)]),
        "input_shape": "[1, 8, 8]",
        "scale": "16.0",
        "fit": "crop",
        "task": json.dumps(TASK),
        "architecture": json.dumps({"_target_": "microstep.components.model.SmallCNN", "width": 32}),
        "epoch": "3",
        "microstep": version("microstep"),
    }


def test_the_weights_are_those_of_the_best_epoch(tmp_path) -> None:
    """If later epochs are worse, the file has the weights and the epoch of the best checkpoint."""
    unstable = ("model=mlp", "scheduler=constant", "optimizer.lr=1", "max_grad_norm=1", "epochs=4")
    results = fit(unstable, tmp_path / "run")
    about, state = opened(tmp_path / "run" / "model.safetensors")
    assert int(about["epoch"]) == results.best_epoch < 4
    assert json.loads(about["metrics"]) == results.val
    assert same(state, Checkpoints(tmp_path / "run" / "checkpoints").load("best")["model"])
    assert not same(state, last_weights(tmp_path / "run"))


def test_a_task_without_classes_leaves_out_what_it_hasnt(zygote, tmp_path) -> None:
    """Regression has no class names, image shape or normalization; fp64 weights stay fp64."""
    words = ("--config-dir", str(CONF), *REGRESSION, "precision=fp64", "epochs=1", "hydra.run.dir=run")
    done = zygote.call("train.py", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    about, state = opened(tmp_path / "run" / "model.safetensors")
    kept = {"format", "dataset", "architecture", "task", "epoch", "metrics", "microstep", "sha256"}
    assert about.keys() == kept
    assert (about["dataset"], json.loads(about["architecture"])["hidden"]) == ("diabetes", 16)
    assert {tensor.dtype for tensor in state.values()} == {torch.float64}


SQUEEZENET = ("model=torchvision", "model.name=squeezenet1_1", "dataset=synthetic", "dataset.samples=60", "epochs=1")
SMALL = ("dataset.val_samples=20", "dataset.test_samples=20", "batch_size=20")


@pytest.mark.parametrize(("channels", "frozen"), [(3, False), (1, False), (3, True), (1, True)])
def test_torchvisions_own_model_takes_the_weights(channels, frozen, tmp_path) -> None:
    """A color, gray or frozen run's file is loaded by safetensors and torchvision alone, strictly, and is the same."""
    words = [*SQUEEZENET, *SMALL, f"dataset.channels={channels}", "threads=1", "progress=false"]
    if frozen:
        torch.save(get_model("squeezenet1_1").state_dict(), tmp_path / "weights.pth")
        words += [f"model.weights={tmp_path / 'weights.pth'}", "model.freeze=backbone"]
    trainer = build_trainer(compose(words), tmp_path / "run")
    trainer.weights.write(trainer.model, 1, {})
    theirs = get_model("squeezenet1_1", num_classes=10).eval()
    theirs.load_state_dict(load_file(trainer.weights.file), strict=True)
    images = torch.randn(2, channels, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(theirs(images.expand(-1, 3, -1, -1)), trainer.model.eval()(images))


@pytest.mark.parametrize("prefix", ["", "model.", "model.model."])
def test_weights_are_read_with_and_without_the_names_of_wrappers(prefix, tmp_path) -> None:
    """`checkpoint=model.safetensors` and `model.weights=` read files of 0.1.0, whose names have a prefix, and ours."""
    results = fit([*SQUEEZENET, *SMALL, "dataset.channels=1"], tmp_path / "run")
    file = tmp_path / "run" / "model.safetensors"
    (about, _), state = opened(file), load(file.read_bytes())
    file.write_bytes(serialize_weights({f"{prefix}{name}": tensor for name, tensor in state.items()}, about))
    again = evaluate_run(tmp_path / "run", "test", "model.safetensors", ALLOW_ALL, None, ProgressBars(False))
    assert again.result.metrics == results.splits["test"].metrics
    tuned = torchvision_model("squeezenet1_1", (1, 32, 32), 4, weights=str(file)).state_dict()
    assert torch.equal(tuned["model.model.features.0.weight"], state["features.0.weight"])


@pytest.mark.parametrize("name", ["mnasnet0_5", "densenet121"])
def test_models_with_versions_are_read_again(name, tmp_path) -> None:
    """A state dict without the versions of its modules, as in safetensors, is loaded as one of today's."""
    model, fresh = (torchvision_model(name, (3, 32, 32), 4) for _ in range(2))
    load_state(fresh, load_file(written(model, tmp_path)))
    assert same(fresh.state_dict(), model.state_dict())


class Odd(nn.Module):
    """Holds tensors of every kind that a model may hold."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(4, 4)
        self.other = nn.Linear(4, 4)
        self.other.weight = self.one.weight
        self.transposed = nn.Parameter(torch.randn(3, 5).t())
        self.convolution = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        whole = torch.randn(6)
        for name, tensor in {
            "view": whole[1:4],
            "overlapping": whole[2:6],
            "scalar": torch.tensor(7),
            "empty": torch.zeros(0, 3),
            "of_16_bits": torch.randn(3).half(),
            "of_brain_float": torch.randn(3).bfloat16(),
            "of_64_bits": torch.randn(3).double(),
            "of_flags": torch.tensor([True, False]),
            "of_bytes": torch.arange(5, dtype=torch.uint8),
        }.items():
            self.register_buffer(name, tensor)


def test_every_kind_of_tensor_comes_back(tmp_path) -> None:
    """Tied, strided, channels-last and 0-dimensional tensors, views and empty ones: each name has every bit."""
    model, fresh = Odd(), Odd()
    file = written(model, tmp_path)
    assert same(load_file(file), model.state_dict())
    fresh.load_state_dict(load_file(file))
    assert same(fresh.state_dict(), model.state_dict())
    assert fresh.one.weight is fresh.other.weight
    assert model.convolution.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_weights_on_a_gpu_come_back(tmp_path) -> None:
    """The model's device does not matter, and the model stays on it."""
    model = Odd().cuda()
    assert same(load_file(written(model, tmp_path)), {k: t.cpu() for k, t in model.state_dict().items()})
    assert model.one.weight.is_cuda


def test_equal_weights_make_equal_bytes() -> None:
    """safetensors alone would order the metadata by chance; the tensors start at an aligned offset."""
    state = Odd().state_dict() | {"expanded": torch.randn(1, 3).expand(4, 3)}
    about = {key: key for key in "zyxabcdefgé"}
    first = serialize_weights(state, about)
    assert all(serialize_weights(state, about) == first for _ in range(5))
    assert int.from_bytes(first[:8], "little") % 8 == 0
    assert same(load(first), state)


def test_what_the_environment_holds_is_not_told(monkeypatch) -> None:
    """`${oc.env:…}` stays as typed, by itself or behind another key; a reference to a plain key becomes its value."""
    monkeypatch.setenv("SECRET", "hunter2")
    deep = ["${oc.env:SECRET}", {"x": "${behind}"}]
    node = {"_target_": "a.b", "width": "${size}", "near": "${.width}", "deep": deep}
    config = OmegaConf.create({"size": 3, "behind": "<${oc.env:SECRET}>", "model": node})
    assert config.model.deep[1].x == "<hunter2>"
    expected = {"_target_": "a.b", "width": 3, "near": 3, "deep": ["${oc.env:SECRET}", {"x": "<${oc.env:SECRET}>"}]}
    assert public_experiment(config)["model"] == expected


def test_names_in_any_script_come_back(tmp_path) -> None:
    """Class names may be in any script; those of folders need not even be UTF-8."""
    names = ("caffè", "猫", 'a "b"\\c', "\udcff")
    dataset = split_in_three(torch.zeros(5, 2), torch.zeros(5), {"class_names": names}, "odd")
    file = weights_file(tmp_path, OmegaConf.create({"model": {}}), dataset, "odd\udcff")
    file.write(nn.Linear(2, 2), 1, {"loss": float("nan")})
    about, _ = opened(file.file)
    assert tuple(json.loads(about["class_names"])) == names
    assert json.loads(about["metrics"]) == {"loss": None}


@pytest.mark.parametrize("fit", FITS)
def test_how_files_are_fitted_is_told(tmp_path, fit) -> None:
    """The weights of a run on image files say how an image of another shape becomes an input."""
    dataset = folders.opened(folders.filled(tmp_path / "data", {"ant": 10, "bee": 10}), fit=fit)
    weights_file(tmp_path, OmegaConf.create({"model": {}}), dataset, "own").write(nn.Linear(2, 2), 1, {})
    about, _ = opened(tmp_path / "model.safetensors")
    assert (about["fit"], json.loads(about["input_shape"])) == (fit, [3, 8, 8])


class Talkative(nn.Linear):
    """Keeps a value in its state that is not a tensor."""

    def get_extra_state(self) -> object:
        return {"words": 3}

    def set_extra_state(self, state: object) -> None:
        """Nothing needs it."""


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("phase", torch.zeros(2, dtype=torch.complex128))


class Sparse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("graph", torch.eye(3).to_sparse())


@pytest.mark.parametrize("model", [Talkative(2, 2), Complex(), Sparse()], ids=["extra", "complex", "sparse"])
def test_a_model_that_safetensors_can_not_hold_is_warned_of(model, tmp_path, caplog) -> None:
    """A long run does not fail at its end for this: one line says why, and there is no file."""
    with caplog.at_level(logging.WARNING, "microstep.notice"):
        assert not written(model, tmp_path).exists()
    (record,) = caplog.records
    assert record.getMessage().startswith("model.safetensors is not written, safetensors can't hold this model: ")
    assert "\n" not in record.getMessage()


def test_on_a_full_disk_there_is_no_part_of_it(tmp_path) -> None:
    """Exit code 4, nothing left behind, and an older file stays whole."""
    with files_limited(1000), pytest.raises(StorageError, match=r"model\.safetensors: .*ulimit -f") as caught:
        written(nn.Linear(100, 100), tmp_path)
    assert caught.value.exit_code == 4
    assert list(tmp_path.iterdir()) == []


def test_a_run_whose_weights_can_not_be_written_fails_for_storage(tmp_path) -> None:
    """Its reports and checkpoints are there by then, and run.json says what happened."""
    trainer = build_trainer(compose(["threads=1", "progress=false", "epochs=1"]), tmp_path / "run")
    (tmp_path / "run" / "model.safetensors").mkdir()
    with pytest.raises(StorageError):
        trainer.fit()
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["status"], "model.safetensors" in record["error"]) == ("failed", True)
    assert (tmp_path / "run" / "reports" / "test" / "predictions.csv").exists()
    assert not list((tmp_path / "run").glob("*.tmp")) + list((tmp_path / "run").glob(".*.tmp"))
