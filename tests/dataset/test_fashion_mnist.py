"""Fashion-MNIST from idx files: sound ones become three splits, others an error that says how to get better ones."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from microstep import build_trainer, compose
from microstep.dataset import fashion_mnist
from microstep.errors import DataError
from microstep.measure import measure

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
    """A tiny Fashion-MNIST: 60 pictures to train on and 20 to test on, six and two of each class."""
    generator = np.random.default_rng(0)
    for prefix, count in (("train", 60), ("t10k", 20)):
        pictures = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        write(tmp_path / f"{prefix}-images-idx3-ubyte{request.param}", idx(pictures))
        write(tmp_path / f"{prefix}-labels-idx1-ubyte{request.param}", idx(np.arange(count, dtype=np.uint8) % 10))
    return tmp_path


def file_of(root: Path, name: str) -> Path:
    return next(root.glob(f"{name}*"))


def refused(root: Path) -> str:
    """Return the line that a root is refused with."""
    with pytest.raises(DataError) as caught:
        fashion_mnist(CPU, str(root), val_samples=10)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_the_four_files_become_three_splits(root):
    """Validation is carved from the training files, a class at a time; the test files are the test split, in order."""
    dataset = fashion_mnist(CPU, str(root), val_samples=10)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 50, "val": 10, "test": 20}
    assert torch.bincount(dataset.splits["val"].targets).tolist() == [1] * 10
    assert dataset.splits["test"].indices.tolist() == list(range(20))
    assert dataset.facts["class_names"][9] == "Ankle boot"
    assert dataset.facts["input_shape"] == (1, 28, 28)


def test_a_picture_reaches_a_batch_with_its_own_label(root):
    """A batch's rows are the file's pictures over 255, normalised as configured, with their own labels."""
    test = fashion_mnist(CPU, str(root), val_samples=10, mean=[0.25], std=[0.5]).splits["test"]
    rows = torch.tensor([7, 3])
    batch = test.fetch(rows, rows)
    expected = (test.pictures([7, 3]) - 0.25) / 0.5
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
    """Bytes after the declared end are not passed over in silence."""
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


@pytest.mark.parametrize(("labels", "reason"), [(range(59), "60 pictures and 59 labels"), ([10] * 60, "from 10 to 10")])
def test_labels_that_do_not_belong_to_the_pictures_are_refused(root, labels, reason):
    """Too few labels, or labels of a data set with more classes, are found when the files are read."""
    write(file_of(root, LABELS), idx(np.array([label % 11 for label in labels], np.uint8)))
    assert reason in refused(root)


@pytest.mark.parametrize("root", [".gz"], indirect=True)
def test_a_run_on_it_is_trained_and_tested(root, tmp_path):
    """The configured data set works from the root to the report, from any directory of files."""
    overrides = ["dataset=fashion_mnist", f"dataset.root={root}", "dataset.val_samples=10", "epochs=1", "model=mlp"]
    results = build_trainer(compose([*overrides, "threads=1", "progress=false"]), tmp_path / "run").fit()
    assert 0 <= results.test["accuracy"] <= 1
    assert "Ankle boot" in (tmp_path / "run" / "reports" / "test" / "classification_report.txt").read_text()


@pytest.mark.skipif(not REAL.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_the_real_files_have_the_mean_and_deviation_that_the_config_holds():
    """Over all 60,000 official training pictures: 0.2860 and 0.3530, which is what conf/dataset says."""
    dataset = fashion_mnist(CPU, str(REAL), mean=[0.0], std=[1.0])
    found = measure(dataset, ["train"], None, 0, lambda parts, label, total: iter(parts))["train"].statistics
    assert found.count == 60_000
    assert [f"{value:.4f}" for value in (*found.mean, *found.std)] == ["0.2860", "0.3530"]
    configured = compose(["dataset=fashion_mnist"]).dataset
    assert [list(configured.mean), list(configured.std)] == [[0.2860], [0.3530]]
    assert [len(split) for split in dataset.splits.values()] == [55_000, 5_000, 10_000]
