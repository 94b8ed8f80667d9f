"""Resident or streaming, with however many workers: the same batches, bit by bit."""

from __future__ import annotations

import csv
import resource
from pathlib import Path

import pytest
import torch
from torchvision.transforms import v2

from microstep.components import augment as recipes
from microstep.components.accumulation import Fixed
from microstep.components.augment import Pipeline
from microstep.components.dataset import ResidentSplit, StreamingSplit, images
from microstep.components.sampler import Balanced, Shuffle
from microstep.components.task import Classification
from microstep.config.compose import compose
from microstep.training.build import build_trainer
from microstep.training.builders import build_components
from microstep.training.loaders import Loaders
from microstep.types.data import Batch, Split
from tests.components.dataset.folders import CPU, filled, opened

COUNTS = {"ant": 14, "bee": 20, "cat": 30}
TRANSFORMS = (
    v2.RandomRotation(30),
    v2.ColorJitter(0.4, hue=0.2),
    v2.ToPILImage(),
    v2.PILToTensor(),
    v2.RandomErasing(),
)
RECIPES = {
    "none": recipes.none(),
    "crop_flip": recipes.crop_flip(0.125, 0.5),
    "cutout": recipes.cutout(0.125, 0.5, 0.5),
    "mixup": recipes.mixup(0.125, 0.5, 0.2),
    "cutmix": recipes.cutmix(0.125, 0.5, 1.0),
    "randaugment": recipes.randaugment(0.125, 0.5, 2, 9),
    "torchvision": recipes.torchvision_transforms(TRANSFORMS),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return filled(tmp_path_factory.mktemp("data"), COUNTS)


def splits(root: Path, resident: bool, workers: int = 0):
    dataset = opened(root, resident=resident, num_workers=workers)
    kind = ResidentSplit if resident else StreamingSplit
    assert all(isinstance(split, kind) for split in dataset.splits.values())
    return dataset.splits


def loaders(splits, augment: Pipeline, sampler=Shuffle) -> Loaders:
    targets = splits["train"].targets
    task = Classification(("ant", "bee", "cat"), targets, CPU)
    return Loaders(splits, sampler(targets), augment, Fixed(3, 4), task, 5, 0, CPU)


def trained_on(one: Loaders, epoch: int) -> list[Batch]:
    """Return an epoch's batches; the second window is gone through twice, as sharpness-aware steps do."""
    windows = one.train(epoch)
    return [
        batch for number, window in enumerate(windows) for _ in range(1 + (number == 1)) for batch in window.batches
    ]


@pytest.mark.parametrize("resident", [True, False])
def test_a_report_names_files(root, tmp_path, resident):
    """Whichever the backend, predictions.csv has each sample's file below the root, of its own class."""
    words = [
        "dataset=image_folder",
        f"dataset.root={root}",
        f"dataset.resident={resident}",
        "num_workers=0",
        "epochs=1",
    ]
    trainer = build_trainer(
        compose([*words, "dataset.size=8", "model=mlp", "batch_size=8", "progress=false"]), tmp_path
    )
    trainer.fit()
    with (tmp_path / "reports" / "test" / "predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {tuple(row) for row in rows} == {("index", "label", "prediction", "confidence", "file")}
    assert all((root / row["file"]).is_file() for row in rows)
    assert [sorted(COUNTS)[int(row["label"])] for row in rows] == [Path(row["file"]).parent.name for row in rows]


def same(one: Batch, other: Batch) -> bool:
    """Whether two batches are the same to the last bit, and in the same layout: a kernel may round by it."""
    fields = ("inputs", "targets", "positions", "indices")
    mixes = [(a.targets, a.share) if a else () for a in (one.mix, other.mix)]
    pairs = [(getattr(one, name), getattr(other, name)) for name in fields] + list(zip(*mixes, strict=True))
    return all(a.dtype == b.dtype and a.stride() == b.stride() and torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", RECIPES)
def test_streamed_batches_are_the_resident_ones(root, name, workers):
    """Two epochs with each augmentation, and validation between them: inputs, labels, positions, places and mixes."""
    here, there = (loaders(splits(root, kind, workers), RECIPES[name]) for kind in (True, False))
    for epoch in (1, 2):
        pairs = list(zip(trained_on(here, epoch), trained_on(there, epoch), strict=True))
        assert len(pairs) == 16
        assert all(same(*pair) for pair in pairs)
        assert all(same(*pair) for pair in zip(here.evaluation("val"), there.evaluation("val"), strict=True))


def test_a_resident_set_of_many_chunks_needs_few_open_files(root, monkeypatch):
    """Workers read 52 chunks of training images, although this process may open only 35 more files."""
    monkeypatch.setattr(images, "CHUNK_FILES", 1)
    expected = splits(root, resident=True)["train"].images
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 35, before[1]))
    try:
        assert torch.equal(splits(root, resident=True, workers=1)["train"].images, expected)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_what_is_expected_is_read_by_the_workers(root):
    """The training process decodes no image of an epoch or of a validation."""
    one = loaders(splits(root, resident=False, workers=2), RECIPES["cutout"])
    train = one.splits["train"]
    assert isinstance(train, StreamingSplit)
    list(one.evaluation("test"))
    del train.workers.reader  # the workers have theirs
    assert sum(len(batch.indices) for window in one.train(1) for batch in window.batches) == len(train)
    assert sum(len(batch.indices) for batch in one.evaluation("val")) == len(one.splits["val"])


@pytest.mark.parametrize("name", ["cutout", "mixup"])
def test_images_of_several_passes_are_read_once(root, name):
    """A step that goes through each window twice has no image decoded by the training process, nor twice."""
    here, there = (loaders(splits(root, kind, workers=2), RECIPES[name]) for kind in (True, False))
    train = there.splits["train"]
    list(there.evaluation("test"))
    del train.workers.reader  # the workers have theirs
    expected = [batch for window in here.train(1) for _ in range(2) for batch in window.batches]
    batches = [batch for window in there.train(1, passes=2) for _ in range(2) for batch in window.batches]
    assert all(same(*pair) for pair in zip(expected, batches, strict=True))
    assert train.kept == {}


def test_a_sampler_that_draws_twice_is_streamed_too(root):
    """A row that comes twice in an epoch is read twice, each time augmented by its own position."""
    here, there = (loaders(splits(root, kind, 2), RECIPES["cutout"], Balanced) for kind in (True, False))
    batches = trained_on(there, 1)
    assert all(same(*pair) for pair in zip(trained_on(here, 1), batches, strict=True))
    assert len(set(torch.cat([batch.indices for batch in batches]).tolist())) < 52


def test_a_pass_broken_off_is_no_matter(root):
    """After an epoch that ends early, validation and the next epoch get their own batches."""
    here, there = (loaders(splits(root, kind, 2), RECIPES["cutout"]) for kind in (True, False))
    next(iter(next(there.train(1)).batches))
    assert all(same(*pair) for pair in zip(here.evaluation("test"), there.evaluation("test"), strict=True))
    assert all(same(*pair) for pair in zip(trained_on(here, 2), trained_on(there, 2), strict=True))


@pytest.mark.parametrize("resident", [True, False])
def test_a_split_of_either_kind_is_a_split(root, resident):
    """Rows in any order, repeated, one by one or all at once, are the same images."""
    split = splits(root, resident)["train"]
    assert isinstance(split, Split)
    rows = torch.tensor([5, 0, 5, 17])
    whole = split.fetch(rows, rows)
    assert whole.inputs.dtype == torch.float32
    assert torch.equal(whole.inputs, torch.cat([split.fetch(row, row).inputs for row in rows.split(1)]))
    assert torch.equal(whole.targets, split.targets[rows])
    assert torch.equal(whole.indices, split.indices[rows])
    shown = split.to_images(whole.inputs)
    assert shown.min() >= 0
    assert shown.max() <= 1


@pytest.mark.parametrize("dataset", ["digits", "synthetic"])
def test_pictures_in_memory_can_be_streamed_too(dataset):
    """Streamed batches have the same bits as resident ones."""
    words = {"digits": [], "synthetic": ["dataset.samples=200", "dataset.val_samples=50", "dataset.test_samples=50"]}
    words = [f"dataset={dataset}", *words[dataset], "augment=crop_flip", "threads=1", "batch_size=64"]
    here, there = (
        build_components(compose([*words, f"dataset.resident={kind}", "num_workers=1"])) for kind in ("true", "false")
    )
    assert here.dataset.fingerprint == there.dataset.fingerprint
    pairs = zip(trained_on(here.loaders, 1), trained_on(there.loaders, 1), strict=True)
    assert all(same(*pair) for pair in pairs)
