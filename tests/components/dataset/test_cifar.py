"""CIFAR-10 and CIFAR-100: the published files, or another copy with a warning. No code in a file is run."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from microstep.components.dataset import cifar
from microstep.components.dataset.statistics import ChannelStatistics
from microstep.config.compose import compose
from microstep.errors import ConfigError, DataError
from microstep.training.builders import build_dataset
from tests.components.dataset.cifar_files import KINDS, batch, stored, write_cifar

CPU = torch.device("cpu")
REAL = Path(__file__).resolve().parents[3] / "data"


class Payload:
    """A pickle that runs a program when it is read."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.fixture(params=[10, 100])
def made(tmp_path, monkeypatch, request) -> tuple[int, Path]:
    """Files in torchvision's layout with their own checksums as the published ones: classes, and the root."""
    write_cifar(tmp_path, request.param, monkeypatch)
    return request.param, tmp_path


def opened(made: tuple[int, Path], **keys):
    classes, root = made
    return cifar(CPU, classes, str(root), **{"val_samples": classes} | keys)


def refusal(made: tuple[int, Path], **keys) -> str:
    with pytest.raises(DataError) as caught:
        opened(made, **keys)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_the_batches_become_three_splits(made):
    """All training batches in their order, validation carved from them; names and numbers of classes are the files'."""
    classes, _ = made
    dataset, batches = opened(made), len(KINDS[classes].train_list)
    counts = {name: len(split) for name, split in dataset.splits.items()}
    assert counts == {"train": 4 * classes * batches - classes, "val": classes, "test": classes}
    assert dataset.facts["class_names"] == tuple(f"name {label}" for label in range(classes))
    assert dataset.facts["input_shape"] == (3, 32, 32)


def test_pixels_and_labels_are_the_files(made):
    """Red, green and blue planes of 32 rows, each image with its own label, in the order of the file."""
    classes, _ = made
    test = opened(made).official_splits["test"]
    np.testing.assert_array_equal(
        test.read(slice(None)), batch(classes, 0, classes)["data"].pixels.reshape(-1, 3, 32, 32)
    )
    assert test.labels.tolist() == list(range(classes))
    train = opened(made).official_splits["train"]
    last = len(KINDS[classes].train_list) - 1
    expected = batch(classes, last, 4 * classes)["data"].pixels.reshape(-1, 3, 32, 32)
    np.testing.assert_array_equal(train.read(slice(None))[-4 * classes :], expected)


class Called(Payload):
    """The same by a function of the modules that arrays come from."""

    def __reduce__(self):
        return np._core.multiarray.fromfile, (str(self.marker),)


@pytest.mark.parametrize("payload", [Payload, Called])
def test_code_in_a_file_is_never_run(made, tmp_path, payload):
    """A pickle may name any function: all but those that make arrays are refused, with the name of the file."""
    classes, root = made
    kind, marker = KINDS[classes], tmp_path / "it ran"
    for name in [kind.train_list[0][0], kind.test_list[0][0], kind.meta["filename"]]:
        file = root / kind.base_folder / name
        before = file.read_bytes()
        stored(file, {"data": payload(marker)})
        assert refusal(made).startswith(f"{file}: it can't be read: it holds more than arrays and plain values (")
        assert not marker.exists()
        file.write_bytes(before)
    pickle.loads(pickle.dumps(Payload(marker)))
    assert marker.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_another_copy_is_read_with_a_warning(made, caplog, protocol):
    """Files that were pickled again hold the same images; one line names them."""
    classes, root = made
    kind, before = KINDS[classes], opened(made).fingerprint
    assert caplog.messages == []
    names = [name for name, _ in kind.test_list]
    for name in names:
        file = root / kind.base_folder / name
        content = pickle.loads(file.read_bytes(), encoding="latin1")
        file.write_bytes(pickle.dumps(content | {"data": content["data"].copy()}, protocol))
    assert opened(made).fingerprint == before
    assert caplog.messages == [
        f"{root / kind.base_folder} is not the published copy: the checksums of {', '.join(names)} differ"
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle",
        pickle.dumps([1]),
        pickle.dumps({"data": np.zeros((2, 3071), np.uint8), "labels": [0, 1], "fine_labels": [0, 1]}),
        pickle.dumps({"data": np.zeros((2, 3072)), "labels": [0, 1], "fine_labels": [0, 1]}),
        pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 100], "fine_labels": [0, 100]}),
        pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 0.5], "fine_labels": [0, 0.5]}),
    ],
)
def test_a_damaged_file_is_refused(made, content):
    """Other bytes, shapes, types or labels are refused in one line."""
    classes, root = made
    kind = KINDS[classes]
    file = root / kind.base_folder / kind.test_list[0][0]
    file.write_bytes(content)
    assert refusal(made).startswith(
        (f"{file}: it can't be read: ", "dataset: the images are float64", "dataset: labels")
    )


def test_a_missing_file_is_named_with_what_to_put_where(made):
    """The archive's name and address, the directory, and the key that fetches it; nothing that would not help."""
    classes, root = made
    kind = KINDS[classes]
    (root / kind.base_folder / kind.test_list[0][0]).unlink()
    line = refusal(made)
    assert line.startswith(f"dataset.root={root}: {kind.base_folder}/{kind.test_list[0][0]} is not there; ")
    assert f"unpack {kind.filename} ({kind.url}) into {root}" in line
    assert f"or remove {kind.base_folder}/ and add dataset.download=true" in line


def test_an_empty_root_is_named(tmp_path):
    """Before anything was fetched the same line says how to."""
    line = refusal((10, tmp_path))
    assert line.startswith(f"dataset.root={tmp_path}: cifar-10-batches-py/data_batch_1 is not there; unpack ")
    assert line.endswith(f"into {tmp_path}, or add dataset.download=true")


def test_what_is_there_is_not_fetched(made, offline):
    """download=true asks nobody where the folder is there."""
    assert opened(made, download=True).splits
    assert offline == []


@pytest.mark.parametrize("classes", [10, 100])
def test_what_can_not_be_fetched_leaves_nothing_behind(tmp_path, offline, classes):
    """Without a network: one line that says what to put where; the root is as it was."""
    line = refusal((classes, tmp_path), download=True)
    kind = KINDS[classes]
    assert line.startswith("dataset.download=true: it could not be fetched (")
    assert line.endswith(f"put the content of {kind.filename} ({kind.url}) into {tmp_path / kind.base_folder} by hand")
    assert "\n" not in line
    assert offline
    assert list(tmp_path.iterdir()) == []


def test_what_is_fetched_is_there_whole_or_not_at_all(made, tmp_path, monkeypatch):
    """A complete download is moved into place at once and works; an interrupted one leaves nothing."""
    classes, root = made
    kind, target = KINDS[classes], tmp_path / "fresh"

    def arrive(self, whole: bool = True) -> None:
        folder = Path(self.root) / kind.base_folder
        folder.mkdir()
        for file in (root / kind.base_folder).iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
            if not whole:
                raise ConnectionResetError("Connection reset by peer")

    monkeypatch.setattr(KINDS[10], "download", lambda self: arrive(self, whole=False))
    assert "Connection reset by peer" in refusal((classes, target), download=True)
    assert not target.exists()
    monkeypatch.setattr(KINDS[10], "download", arrive)
    assert opened((classes, target), download=True).fingerprint == opened(made).fingerprint
    assert [path.name for path in target.iterdir()] == [kind.base_folder]


def test_ten_or_a_hundred_classes():
    """Another number is refused by its key."""
    with pytest.raises(ConfigError, match=r"^dataset\.classes=20"):
        build_dataset(compose(["dataset=cifar10", "dataset.classes=20"]), CPU)


@pytest.mark.skipif(not (REAL / "cifar-10-batches-py").is_dir(), reason="CIFAR-10 is not in data/")
def test_the_real_files_have_the_mean_and_deviation_that_the_config_holds():
    """Over all 50,000 official training images, which is what conf/dataset says."""
    dataset = cifar(CPU, 10, str(REAL))
    train = dataset.official_splits["train"]
    found = ChannelStatistics.from_stream([train.read(slice(None))], train.scale)
    configured = compose(["dataset=cifar10"]).dataset
    np.testing.assert_allclose([found.mean, found.std], [configured.mean, configured.std], atol=5e-5)
    assert [len(split) for split in dataset.splits.values()] == [45_000, 5_000, 10_000]
