"""Parts that don't go together are refused in one line, before the first step; what goes together is put together."""

from pathlib import Path

import pytest
import torch

from microstep.components.model import torchvision_model
from microstep.config.compose import compose
from microstep.errors import ConfigError
from microstep.training.build import build_trainer
from tests.conftest import error_of, fit

TASKS = ("--config-dir", str(Path(__file__).parents[1] / "tasks" / "conf"))
REGRESSION = ("task=regression", "dataset=diabetes", "model=perceptron")


ONE_LEFT = "1,437 samples leave a micro-batch of one, and BatchNorm needs more than 1 value per channel"


class Half:
    """Draws every other sample."""

    def __init__(self, train_targets: torch.Tensor) -> None:
        self.rows = torch.arange(1, len(train_targets), 2)

    def order(self, *key: int) -> torch.Tensor:
        return self.rows


class Twice(Half):
    """Draws every sample twice."""

    def __init__(self, train_targets: torch.Tensor) -> None:
        self.rows = torch.arange(2 * len(train_targets)) // 2


def transforms(node: str) -> list[str]:
    return ["augment=torchvision", f"augment.transforms=[{{_target_:torchvision.transforms.v2.{node}}}]"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["batch_size=1438"], "batch_size=1438: an epoch has 1,437 samples; choose at most 1437"),
        (["effective_batch_size=1500"], "batch_size=1500: an epoch has 1,437 samples"),
        (["augment=torchvision"], "augment.transforms=???: it has no value; give one: augment.transforms="),
        (
            transforms("Resize,size:4"),
            "augment.transforms: they make torch.uint8, (1, 4, 4) of torch.uint8, (1, 8, 8); ",
        ),
        (
            transforms("ConvertImageDtype"),
            "augment.transforms: they make torch.float32, (1, 8, 8) of torch.uint8, (1, ",
        ),
        (transforms("MixUp,num_classes:10"), "augment.transforms: labels should be index based with shape "),
        (transforms("ToPILImage"), "augment.transforms: "),
        (transforms("RandomRotation"), "augment (microstep.components.augment.torchvision_transforms): RandomRotation"),
        ([*TASKS, *REGRESSION, "augment=mixup"], "augment: Regression can't be mixed; "),
        (
            [*TASKS, *REGRESSION, "augment=crop_flip"],
            "augment: it is for the uint8 images of microstep.image_dataset; return one from the data set, or leave ",
        ),
        (["augment=crop_flip", "augment.flip=2"], "augment.flip=2: out of range; "),
        (["augment=mixup", "augment.alpha=0"], "augment.alpha=0: out of range; "),
        (["augment=cutout", "augment.hol=0.5"], "augment.hol=0.5: no such key; did you mean augment.hole"),
        (["sampler=balanced", "sampler.power=3"], "sampler.power=3: out of range; "),
        (["model=resnet18", "batch_size=359"], f"batch_size=359: {ONE_LEFT}; choose batch_size=360, "),
        (
            ["model=resnet18", "effective_batch_size=1436", "accum=2"],
            f"effective_batch_size=1436: {ONE_LEFT}; choose effective_batch_size=1438, ",
        ),
        (["model=resnet18", "batch_size=1", "check=accumulation", "accum=2"], f"batch_size=1: {ONE_LEFT}; "),
        (
            ["sampler._target_=tests.training.test_build.Half", "batch_size=719"],
            "batch_size=719: an epoch has 718 samples; choose at most 718",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(zygote, words, says, tmp_path):
    """Exit code 2, one line that names the key and the way out, and nothing left behind."""
    done = zygote.call("train.py", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert error_of(done).startswith(f"error: {says}")
    assert list(tmp_path.iterdir()) == []


def test_a_whole_split_is_a_batch_still(tmp_path):
    """The largest batch size is the training split's."""
    trainer = build_trainer(compose(["batch_size=1437", "model=mlp", "progress=false"]), tmp_path)
    (window,) = trainer.loaders.train(1)
    assert [len(batch.targets) for batch in window.batches] == [1437]


@pytest.mark.parametrize("augment", ["none", "crop_flip", "mixup"])
@pytest.mark.parametrize(("sampler", "samples", "steps"), [("Half", 718, 8), ("Twice", 2874, 29)])
def test_lengths_are_those_of_the_samplers_order(sampler, samples, steps, augment, tmp_path, monkeypatch):
    """Steps, schedule, progress bars, and counts of an epoch that is half or twice as long as the training split."""
    words = [f"sampler._target_=tests.training.test_build.{sampler}", f"augment={augment}", "accum=2"]
    overrides = ["batch_size=50", "epochs=2", "model=mlp", "scheduler=cosine", "threads=1", "progress=false"]
    trainer, totals = build_trainer(compose([*words, *overrides]), tmp_path), []
    monkeypatch.setattr(trainer.loggers.bars, "samples", lambda items, label, total, *_: totals.append(total) or items)
    results = trainer.fit()
    assert trainer.components.steps == steps
    assert (results.optimizer_steps, results.samples_seen) == (2 * steps, 2 * samples)
    assert trainer.optimization.scheduler.get_last_lr() == [pytest.approx(0, abs=1e-6)]
    assert totals == [samples, 180, samples, 180, 180, 180]


@pytest.mark.parametrize("augment", ["none", "mixup"])
def test_pretrained_weights_bring_their_own_normalisation(augment, tmp_path):
    """The data set's own mean and deviation give way to the weights'."""
    file = tmp_path / "squeezenet1_1-b8a52dc0.pth"  # the name of torchvision's own
    torch.save(torchvision_model("squeezenet1_1", (3, 64, 64), 1000).state_dict(), file)
    words = ["model=torchvision", "model.name=squeezenet1_1", f"model.weights={file}"]
    size = ["dataset=synthetic", "dataset.size=32", "dataset.samples=200", "dataset.val_samples=20", "batch_size=4"]
    trainer = build_trainer(compose([*words, *size, f"augment={augment}", "progress=false"]), tmp_path / "run")
    split = trainer.loaders.splits["train"]
    assert split.normalizer.fill_color == [124, 116, 104]  # ImageNet's mean colour, in bytes
    inputs = next(iter(trainer.loaders.evaluation("val"))).inputs
    pixels = trainer.loaders.splits["val"].images[:16].float() / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    torch.testing.assert_close(inputs, (pixels - mean) / std, atol=1e-5, rtol=0)


def test_a_data_set_that_makes_no_splits_is_refused(tmp_path):
    """A `_target_` must build an object of its group's protocol."""
    config = compose(["progress=false"])
    config.dataset = {"_target_": "microstep.components.model.mlp", "input_shape": [4], "num_classes": 2}
    with pytest.raises(ConfigError, match="it makes no Dataset"):
        build_trainer(config, tmp_path)


@pytest.mark.parametrize(
    "words", [["model=resnet18", "model.norm=group"], ["model._target_=tests.faults.models.normed"]]
)
def test_a_micro_batch_of_one_is_no_matter_without_batch_norm_or_on_larger_maps(words, tmp_path):
    """Such a model is built, and what asks it changes neither its buffers nor its weights."""
    trainers = [
        build_trainer(compose([*words, f"batch_size={size}", "threads=1"]), tmp_path / str(size)) for size in (359, 360)
    ]
    asked, unasked = (trainer.model.state_dict() for trainer in trainers)
    assert all(torch.equal(asked[name], tensor) for name, tensor in unasked.items())


def test_the_last_micro_batch_of_one_trains(tmp_path):
    """BatchNorm on maps of 8 × 8 takes the one sample that an epoch leaves."""
    words = ["model._target_=tests.faults.models.normed", "batch_size=359", "epochs=1", "scheduler=constant"]
    assert fit(words, tmp_path / "run").samples_seen == 1437
