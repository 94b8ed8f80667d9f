"""MNIST, Fashion-MNIST and KMNIST from IDX files: three splits, or an error that says what to do."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from microstep.components.dataset import mnist
from microstep.components.dataset.mnist import MNIST_CLASSES
from microstep.components.dataset.normalization import format_channel_values
from microstep.components.dataset.statistics import ChannelStatistics
from microstep.config.compose import compose
from microstep.errors import ConfigError, DataError
from microstep.training.build import build_trainer
from microstep.training.builders import build_dataset

CPU = torch.device("cpu")
REAL = Path("/usr/share/datasets/fashion-mnist")
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def idx(array: np.ndarray) -> bytes:
    """Return an idx file of bytes."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def write(file: Path, content: bytes) -> None:
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)


@pytest.fixture(params=["", ".gz"], ids=["plain", "gzipped"])
def root(tmp_path, request) -> Path:
    """A tiny Fashion-MNIST: 60 images to train on and 20 to test on, six and two of each class."""
    generator = np.random.default_rng(0)
    for prefix, count in (("train", 60), ("t10k", 20)):
        pictures = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        write(tmp_path / f"{prefix}-images-idx3-ubyte{request.param}", idx(pictures))
        write(tmp_path / f"{prefix}-labels-idx1-ubyte{request.param}", idx(np.arange(count, dtype=np.uint8) % 10))
    return tmp_path


def file_of(root: Path, name: str) -> Path:
    return next(root.glob(f"{name}*"))


def fashion(root: Path, **keys):
    """Return the tiny data set."""
    return mnist(CPU, "FashionMNIST", str(root), **{"val_samples": 10} | keys)


def refused(root: Path) -> str:
    """Return the line that a root is refused with."""
    with pytest.raises(DataError) as caught:
        fashion(root)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_the_four_files_become_three_splits(root):
    """Validation is carved from the training files, a class at a time; the test files are the test split, in order."""
    dataset = fashion(root)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 50, "val": 10, "test": 20}
    assert torch.bincount(dataset.splits["val"].targets).tolist() == [1] * 10
    assert dataset.splits["test"].indices.tolist() == list(range(20))
    assert dataset.facts["class_names"][9] == "Ankle boot"
    assert dataset.facts["input_shape"] == (1, 28, 28)


def test_a_picture_reaches_a_batch_with_its_own_label(root):
    """A batch's rows are the file's images over 255, normalized as given, with their own labels."""
    test = fashion(root, mean=[0.25], std=[0.5]).splits["test"]
    rows = torch.tensor([7, 3])
    batch = test.fetch(rows, rows)
    content = file_of(root, "t10k-images-idx3-ubyte").read_bytes()
    content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    pixels = torch.frombuffer(bytearray(content[16:]), dtype=torch.uint8).view(20, 1, 28, 28)[[7, 3]]
    expected = (pixels / 255 - 0.25) / 0.5
    torch.testing.assert_close(batch.inputs, expected, atol=1e-6, rtol=0)
    assert batch.targets.tolist() == [7, 3]


@pytest.mark.parametrize("name", [IMAGES, LABELS, "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_each_missing_file_is_named_with_the_way_to_get_it(root, name):
    """The line names the directory, the file, and Debian's package."""
    file_of(root, name).unlink()
    line = refused(root)
    assert line.startswith(f"dataset.root={root}: {name} or {name}.gz is not there")
    assert "apt install dataset-fashion-mnist" in line


@pytest.mark.parametrize("name", [IMAGES, LABELS])
def test_a_file_cut_short_is_named(root, name):
    """A broken download, plain or gzipped, is refused with the file's own name and what to do."""
    file = file_of(root, name)
    file.write_bytes(file.read_bytes()[:-9])
    line = refused(root)
    assert line.startswith(f"{file}: ")
    assert line.endswith("; fetch the file again")


@pytest.mark.parametrize("name", [IMAGES, LABELS])
def test_a_file_with_more_than_it_declares_is_named(root, name):
    """Bytes after the declared end are an error."""
    file = file_of(root, name)
    content = file.read_bytes()
    write(file, (gzip.decompress(content) if file.suffix == ".gz" else content) + b"more")
    assert refused(root).startswith(f"{file}: it declares")


def test_labels_in_place_of_pictures_are_told_by_the_magic_number(root):
    """Two files that were swapped are found at once."""
    images, labels = file_of(root, IMAGES), file_of(root, LABELS)
    images.write_bytes(labels.read_bytes())
    assert refused(root).startswith(f"{images}: it is no idx file of 3 dimensions")


def test_a_damaged_gzip_stream_is_named(tmp_path):
    """Rubbish under a .gz name is refused in one line."""
    (tmp_path / f"{IMAGES}.gz").write_bytes(b"this is no gzip stream")
    assert refused(tmp_path).startswith(f"{tmp_path / IMAGES}.gz: ")


@pytest.mark.parametrize(("labels", "reason"), [(range(59), "60 images and 59 labels"), ([10] * 60, "from 10 to 10")])
def test_labels_that_do_not_belong_to_the_pictures_are_refused(root, labels, reason):
    """Too few labels, or labels of a data set with more classes, are found when the files are read."""
    write(file_of(root, LABELS), idx(np.array([label % 11 for label in labels], np.uint8)))
    assert reason in refused(root)


@pytest.mark.parametrize("root", [".gz"], indirect=True)
def test_a_run_on_it_is_trained_and_tested(root, tmp_path):
    """The configured data set works from the root to the report, from any directory of files."""
    overrides = [
        "dataset=fashion_mnist",
        f"dataset.root={root}",
        "dataset.val_samples=10",
        "epochs=1",
        "model=mlp",
        "batch_size=16",
    ]
    results = build_trainer(compose([*overrides, "threads=1", "progress=false"]), tmp_path / "run").fit()
    assert 0 <= results.test["accuracy"] <= 1
    assert "Ankle boot" in (tmp_path / "run" / "reports" / "test" / "classification_report.txt").read_text()


@pytest.mark.skipif(not REAL.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_the_real_files_have_the_mean_and_deviation_that_the_config_holds():
    """Over all 60,000 official training images: 0.2860 and 0.3530, which is what conf/dataset says."""
    dataset = mnist(CPU, "FashionMNIST", str(REAL), mean=[0.2860], std=[0.3530])
    train = dataset.official_splits["train"]
    found = ChannelStatistics.from_stream([train.read(slice(None))], train.scale)
    assert found.count == 60_000
    assert [format_channel_values(found.mean), format_channel_values(found.std)] == ["0.2860", "0.3530"]
    configured = compose(["dataset=fashion_mnist"]).dataset
    assert [list(configured.mean), list(configured.std)] == [[0.2860], [0.3530]]
    assert [len(split) for split in dataset.splits.values()] == [55_000, 5_000, 10_000]


def moved(root: Path, kind: str) -> Path:
    """Put the files where torchvision would."""
    raw = root / kind / "raw"
    raw.mkdir(parents=True)
    for file in list(root.glob("*-ubyte*")):
        file.rename(raw / file.name)
    return raw


@pytest.mark.parametrize("kind", ["MNIST", "FashionMNIST", "KMNIST"])
@pytest.mark.parametrize("root", [""], indirect=True, ids=["plain"])
def test_the_files_lie_in_root_or_where_torchvision_puts_them(root, kind):
    """`root` itself and `root`/<kind>/raw are the same data, by their fingerprint too."""
    flat = mnist(CPU, kind, str(root), val_samples=10)
    moved(root, kind)
    below = mnist(CPU, kind, str(root), val_samples=10)
    assert below.fingerprint == flat.fingerprint
    assert below.facts["class_names"] == flat.facts["class_names"]


@pytest.mark.parametrize("root", [""], indirect=True, ids=["plain"])
def test_each_kind_has_its_own_classes(root):
    """Ten each, in the order of the labels, with the names that torchvision has."""
    names = {kind: mnist(CPU, kind, str(root), val_samples=10).facts["class_names"] for kind in MNIST_CLASSES}
    assert names == {kind: tuple(getattr(torchvision.datasets, kind).classes) for kind in MNIST_CLASSES}


def test_a_directory_without_the_files_is_named_as_it_was_typed(tmp_path):
    """Not some directory below it that the user never heard of; Debian's package is named for Fashion-MNIST alone."""
    assert refused(tmp_path).startswith(f"dataset.root={tmp_path}: train-images-idx3-ubyte or")
    with pytest.raises(DataError) as caught:
        mnist(CPU, "KMNIST", str(tmp_path))
    assert str(caught.value).endswith("; put the four idx files there, gzipped or not, or add dataset.download=true")


def test_another_kind_is_refused():
    """EMNIST has other classes: the error names the key, what was typed and the options."""
    with pytest.raises(ConfigError) as caught:
        build_dataset(compose(["dataset=mnist", "dataset.kind=EMNIST"]), CPU)
    line = str(caught.value)
    assert line.startswith("dataset.kind=EMNIST: is unknown: the options are MNIST, FashionMNIST, KMNIST")


@pytest.mark.parametrize("root", [""], indirect=True, ids=["plain"])
def test_what_is_there_is_not_fetched(root, offline):
    """download=true is no reason to ask the network where the files are there, in either place."""
    assert len(fashion(root, download=True).splits["test"]) == 20
    moved(root, "FashionMNIST")
    assert len(fashion(root, download=True).splits["test"]) == 20
    assert offline == []


def test_what_can_not_be_fetched_leaves_nothing_behind(tmp_path, offline):
    """Without a network the error says what to put where, and the directory is as it was."""
    with pytest.raises(DataError) as caught:
        mnist(CPU, "MNIST", str(tmp_path), download=True)
    line = str(caught.value)
    assert line.startswith("dataset.download=true: it could not be fetched (")
    assert line.endswith(f"into {tmp_path}/MNIST/raw by hand")
    assert "\n" not in line
    assert offline
    assert list(tmp_path.iterdir()) == []
