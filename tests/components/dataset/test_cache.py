"""A cache of decoded images changes no image, whatever happens to its file or to the process that fills it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from microstep.components.dataset.cache import warn_once
from microstep.config.compose import compose
from microstep.errors import ConfigError, StorageError
from microstep.training.builders import build_components, build_dataset
from microstep.training.provenance import config_hash
from tests.components.dataset.folders import CPU, filled, opened, painted

SPLITS = ("train", "val", "test")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> None:
    """A cache of digests of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "digests"))
    warn_once.cache_clear()


@pytest.fixture
def root(tmp_path) -> Path:
    return filled(tmp_path / "data", {"ant": 10, "bee": 14})


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """Mount a file system of 128 KiB, where this process may."""
    place = tmp_path / "small"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("a file system can't be mounted here")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def streamed(root: Path, cache: Path | None = None, **keys):
    return opened(root, resident=False, cache=cache and str(cache), **keys)


def pixels(dataset) -> np.ndarray:
    """Return the images of all splits in reverse order, which is not that of the files."""
    return np.concatenate([dataset.image_sources[name].read(slice(None, None, -1)) for name in SPLITS])


def cache_file(root: Path, cache: Path) -> Path:
    """Return the cache file, after it has been filled."""
    pixels(streamed(root, cache))
    (file,) = cache.iterdir()
    return file


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_with_and_without_a_cache(root, tmp_path, workers):
    """Two epochs and a validation have the same inputs, in the same layout, whoever decodes and whoever reads."""
    words = ["dataset=image_folder", f"dataset.root={root}", "dataset.size=8", "dataset.resident=false", "threads=1"]
    words += ["augment=crop_flip", "batch_size=7", f"num_workers={workers}", "model=mlp"]
    plain, cached = (
        build_components(compose([*words, f"dataset.cache={c}"])).loaders for c in ("null", tmp_path / "c")
    )
    for epoch in (1, 2):
        for one, other in zip(plain.train(epoch), cached.train(epoch), strict=True):
            for a, b in zip(one.batches, other.batches, strict=True):
                assert torch.equal(a.inputs, b.inputs)
                assert a.inputs.stride() == b.inputs.stride()
        pairs = zip(plain.evaluation("val"), cached.evaluation("val"), strict=True)
        assert all(torch.equal(a.inputs, b.inputs) for a, b in pairs)


def test_an_image_is_decoded_once(root, tmp_path, decoded):
    """Neither a second pass nor a later run decodes it, even if that splits the images otherwise or is resident."""
    expected = pixels(first := streamed(root, tmp_path / "cache"))
    assert sorted(decoded) == sorted(file.name for file in root.rglob("*.png"))
    assert np.array_equal(pixels(first), expected)
    assert np.array_equal(pixels(streamed(root, tmp_path / "cache")), expected)
    assert len(opened(root, resident=True, cache=str(tmp_path / "cache"), split_seed=1, val_fraction=0.3).splits) == 3
    assert len(decoded) == 24


def test_another_decoding_is_cached_apart(root, tmp_path):
    """Each size, number of channels and fit has its own images."""
    for keys in ({}, {"size": 9}, {"grey": True}, {"fit": "pad"}) * 2:
        assert np.array_equal(pixels(streamed(root, tmp_path / "cache", **keys)), pixels(streamed(root, **keys)))
    assert len(list((tmp_path / "cache").iterdir())) == 4


def test_a_changed_file_is_decoded_again(root, tmp_path):
    """A file that changes between two runs, or in a run before it is cached, is read as without a cache."""
    pixels(streamed(root, tmp_path / "cache"))
    file = root / "bee" / "003.png"
    painted(file, 77)
    assert np.array_equal(pixels(streamed(root, tmp_path / "cache")), pixels(streamed(root)))
    before, late = file.read_bytes(), streamed(root, tmp_path / "late")
    painted(file, 99)
    assert np.array_equal(pixels(late), pixels(streamed(root)))
    file.write_bytes(before)
    assert np.array_equal(pixels(streamed(root, tmp_path / "late")), pixels(streamed(root)))


@pytest.mark.parametrize("damage", ["truncated", "garbled", "emptied"])
def test_a_damaged_cache_is_filled_again(root, tmp_path, decoded, damage):
    """The images are right at once, and afterwards no image is decoded."""
    content = (file := cache_file(root, tmp_path / "cache")).read_bytes()
    garbled = bytes(byte ^ (number % 500 == 3) for number, byte in enumerate(content))
    dataset = streamed(root, tmp_path / "cache")
    file.write_bytes({"truncated": content[:1000], "garbled": garbled, "emptied": b""}[damage])
    assert np.array_equal(pixels(dataset), pixels(streamed(root)))
    assert file.read_bytes() == content
    decoded.clear()
    pixels(streamed(root, tmp_path / "cache"))
    assert decoded == []


def die_while_writing(dataset) -> None:
    """Fill a cache in a child process that is killed (SIGKILL) in the middle of the 9th image."""
    if pid := os.fork():
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        return
    real, calls = os.pwritev, iter(range(8))

    def write(descriptor: int, buffers, offset: int) -> int:
        if next(calls, None) is None:
            real(descriptor, [bytes(buffers[0])[:100]], offset)
            os.kill(os.getpid(), signal.SIGKILL)
        return real(descriptor, buffers, offset)

    os.pwritev = write
    pixels(dataset)


def test_a_process_killed_while_it_fills_the_cache_does_no_harm(root, tmp_path, decoded):
    """The images that it has written completely are used, and the others are decoded."""
    die_while_writing(dataset := streamed(root, tmp_path / "cache"))
    images = pixels(dataset)
    assert len(decoded) == 24 - 8
    assert np.array_equal(images, pixels(streamed(root)))


def test_a_cache_that_does_not_fit_on_the_disk_is_refused(root, small_disk):
    """The line has the key, the bytes needed and the bytes free; nothing is left behind."""
    with pytest.raises(
        StorageError, match=r"^dataset.cache=\S+: .* need 295,008 bytes, and 131,072 are free; free some"
    ):
        streamed(root, small_disk, size=64)
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize("trouble", ["full", "removed"])
def test_a_cache_that_cannot_be_written_is_told_once(root, small_disk, caplog, trouble):
    """On a disk that has become full, or without its directory, the images are right; one warning says why."""
    dataset = streamed(root, small_disk / "cache", size=32)
    if trouble == "removed":
        shutil.rmtree(small_disk / "cache")
    else:
        with pytest.raises(OSError, match="No space"):
            (small_disk / "other").write_bytes(bytes(2**20))
    assert all(np.array_equal(pixels(dataset), pixels(streamed(root, size=32))) for _ in range(2))
    (line,) = caplog.messages
    reason = "No such file or directory" if trouble == "removed" else "No space left on device"
    assert line.startswith(f"dataset.cache={small_disk / 'cache'}: {reason}; ")


def test_the_key_is_a_path_that_changes_no_experiment(root, tmp_path, monkeypatch):
    """The directory may be below `~` and have spaces and commas; hash and fingerprint are those without a cache."""
    monkeypatch.setenv("HOME", str(tmp_path))
    words = ["dataset=image_folder", f"dataset.root={root}", "dataset.size=8"]
    plain, cached = compose(words), compose([*words, "dataset.cache=~/my cache, (old)"])
    assert config_hash(plain) == config_hash(cached)
    assert build_dataset(plain, CPU).fingerprint == build_dataset(cached, CPU).fingerprint
    assert (tmp_path / "my cache, (old)").is_dir()


def test_an_empty_name_is_refused(root):
    """It is not the working directory."""
    with pytest.raises(ConfigError, match=r"dataset\.cache=: an empty name"):
        opened(root, cache="")
