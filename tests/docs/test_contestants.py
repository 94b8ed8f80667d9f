"""Guarantees that the contestants of benchmarks/trainers.py train what microstep trains."""

import json
from dataclasses import replace

import pytest
import torch
from benchmarks.contestants import by_hand, workload
from benchmarks.contestants.clock import Clock
from benchmarks.contestants.fashion import COUNTS, shorten
from benchmarks.contestants.prepare import prepare
from benchmarks.contestants.workload import Workload

from microstep.components.augment.operations import CropFlip
from microstep.components.dataset.mnist import read_idx_split
from microstep.components.model import SmallCNN, resnet18
from microstep.components.scheduler import cosine
from microstep.config.compose import compose


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Workload:
    file = tmp_path_factory.mktemp("workload") / "digits.pt"
    prepare(str(file), ["dataset=digits", "epochs=2"])
    return Workload(**torch.load(file), seed=0)


@pytest.mark.parametrize(
    ("name", "own"), [("small_cnn", SmallCNN((3, 8, 8), 10)), ("resnet18", resnet18((3, 8, 8), 10))]
)
def test_the_models_are_those_of_microstep(name, own) -> None:
    """With the same weights, a contestant's model computes the same bits as microstep's."""
    model, images = workload.MODELS[name](3), torch.randn(4, 3, 8, 8)
    model.load_state_dict(dict(zip(model.state_dict(), own.state_dict().values(), strict=True)))
    assert torch.equal(model(images), own(images))


def test_the_settings_are_those_of_microstep() -> None:
    """Optimizer, batch size, label smoothing and learning rates are microstep's defaults."""
    config = compose([])
    assert {key: value for key, value in config.optimizer.items() if key != "_target_"} == workload.OPTIMIZER
    assert (config.batch_size, config.task.label_smoothing) == (workload.BATCH_SIZE, workload.LABEL_SMOOTHING)
    (factor,) = cosine(torch.optim.SGD([torch.zeros(1)], lr=1.0), 50).lr_lambdas
    assert [workload.cosine(step, 50) for step in range(51)] == [factor(step) for step in range(51)]


def test_a_crop_is_one_that_microstep_makes() -> None:
    """Every augmented image is one of the crops and flips that crop_flip of microstep can give."""
    images = torch.arange(1, 37, dtype=torch.uint8).view(1, 1, 6, 6)
    operation = CropFlip(1 / 6, 0.5)
    plans = torch.cartesian_prod(torch.arange(3), torch.arange(3), torch.arange(2))
    possible = {tuple(operation.batched(images, plan[None], torch.zeros(1)).flatten().tolist()) for plan in plans}
    made = workload.crop_flip(images.float().expand(1000, -1, -1, -1), 1, 0.0)
    assert {tuple(image.flatten().tolist()) for image in made} == possible


def test_the_prepared_inputs_are_normalized(digits) -> None:
    """The training inputs have mean 0 and standard deviation 1, and an augmented border is a black pixel."""
    inputs, labels = digits.inputs("train")
    assert (len(inputs), len(labels), len(digits.val[0])) == (1437, 1437, 180)
    torch.testing.assert_close(torch.stack([inputs.mean(), inputs.std(correction=0)]), torch.tensor([0.0, 1.0]))
    assert replace(digits, padding=8).augment(inputs).amin().item() == pytest.approx(inputs.amin().item())


def test_the_loop_written_by_hand_learns(digits, tmp_path, monkeypatch) -> None:
    """Two epochs of digits reach 80 % on the validation split; time and accuracy are written as JSON."""
    monkeypatch.chdir(tmp_path)
    clock = Clock()
    by_hand.train(digits, clock)
    clock.write(tmp_path / "result.json")
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["accuracy"] > 0.8
    assert min(result["first"], result["later"]) > 0


def test_a_shortened_data_set_holds_the_first_images(idx_files, tmp_path, monkeypatch) -> None:
    """The smaller IDX files hold the first images of the official splits, with their labels."""
    monkeypatch.setitem(COUNTS, "train", 7)
    monkeypatch.setitem(COUNTS, "t10k", 5)
    shorten(idx_files, tmp_path / "short")
    for prefix, count in COUNTS.items():
        whole, short = (read_idx_split(root, prefix, "") for root in (idx_files, tmp_path / "short"))
        assert all((a[:count] == b).all() for a, b in zip(whole, short, strict=True))
        assert len(short[0]) == count
