"""The idx reader returns exactly what a sound file holds; anything else is a DataError that names the file."""

from __future__ import annotations

import gzip
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from microstep.components.dataset.mnist import read_idx, read_idx_split
from microstep.errors import DataError

PICTURES = np.arange(60, dtype=np.uint8).reshape(5, 3, 4)
HEADER = 16  #: bytes before the pictures
SUFFIXES = pytest.mark.parametrize("suffix", ["", ".gz"], ids=["plain", "gzipped"])


def idx(array: np.ndarray) -> bytes:
    """Return the idx file of an array of bytes, as Yann LeCun describes it."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def stored(directory: Path | str, content: bytes, suffix: str = "") -> Path:
    """Write a file, gzipped where its name says so."""
    file = Path(directory) / f"some-idx3-ubyte{suffix}"
    file.write_bytes(gzip.compress(content) if suffix else content)
    return file


def refused(file: Path, dimensions: int = 3) -> str:
    """Return the one-line refusal of a file, which must begin with its name and end with what to do."""
    with pytest.raises(DataError) as caught:
        read_idx(file, dimensions)
    assert str(caught.value).startswith(f"{file}: ")
    assert str(caught.value).endswith("; fetch the file again")
    return str(caught.value)


@given(array=arrays(np.uint8, array_shapes(min_dims=1, max_dims=4, max_side=6)), suffix=st.sampled_from(["", ".gz"]))
@settings(deadline=None, max_examples=50)
def test_any_array_comes_back_as_it_was_written(array, suffix):
    """Shape and every byte survive, for one dimension or several, plain or gzipped."""
    with TemporaryDirectory() as directory:
        back = read_idx(stored(directory, idx(array), suffix), array.ndim)
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, array)


def test_a_split_is_pictures_with_a_channel_and_whole_number_labels(tmp_path):
    """Images are N × 1 × H × W bytes, labels N int64: one file plain, the other gzipped, as they happen to lie."""
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(PICTURES))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.array([3, 1, 4, 1, 5], np.uint8))))
    pixels, labels = read_idx_split(tmp_path, "train", "no remedy needed")
    np.testing.assert_array_equal(pixels, PICTURES[:, None])
    assert labels.dtype == np.int64
    assert labels.tolist() == [3, 1, 4, 1, 5]


def test_a_missing_file_is_named_with_the_remedy(tmp_path):
    """The error says which file was looked for, where, under both names, and how to get it."""
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(PICTURES))
    with pytest.raises(DataError) as caught:
        read_idx_split(tmp_path, "train", "buy it")
    line = str(caught.value)
    assert line.startswith(f"dataset.root={tmp_path}: train-labels-idx1-ubyte or train-labels-idx1-ubyte.gz")
    assert line.endswith("; buy it")


@SUFFIXES
def test_a_file_cut_short_in_its_pictures_is_refused(tmp_path, suffix):
    """However many of the declared bytes are missing, the file is refused, and the error counts them."""
    content = idx(PICTURES)
    for length in range(HEADER, len(content)):
        assert f"declares 60 bytes and holds {length - HEADER}" in refused(stored(tmp_path, content[:length], suffix))


@SUFFIXES
def test_a_file_cut_short_in_its_header_is_refused(tmp_path, suffix):
    """Wherever the header breaks off, even within a number, the file is refused, never half understood."""
    content = idx(PICTURES)
    for length in range(HEADER):
        refused(stored(tmp_path, content[:length], suffix))


@SUFFIXES
def test_a_file_that_holds_more_than_it_declares_is_refused(tmp_path, suffix):
    """A byte too many is an error."""
    assert "declares 60 bytes and holds more" in refused(stored(tmp_path, idx(PICTURES) + b"\0", suffix))


@pytest.mark.parametrize(
    "magic", [b"\0\0\x08\x01", b"\0\0\x0d\x03", b"\x1f\x8b\x08\x03", b"<htm"], ids=["labels", "floats", "gzip", "html"]
)
def test_another_magic_number_is_refused(tmp_path, magic):
    """Labels for images, floats, a gzipped file under a plain name, a web page: each is told from an idx file."""
    assert "no idx file of 3 dimensions" in refused(stored(tmp_path, magic + idx(PICTURES)[4:]))


def test_a_header_that_declares_absurdly_much_is_refused_unread(tmp_path):
    """A damaged size doesn't make the reader ask for the memory: it is refused by its declaration alone."""
    assert "it declares [4294967295, 28, 28]" in refused(
        stored(tmp_path, bytes([0, 0, 8, 3, 255, 255, 255, 255, 0, 0, 0, 28, 0, 0, 0, 28]))
    )


@given(data=st.data())
@settings(deadline=None, max_examples=100)
def test_a_flipped_bit_of_a_gzipped_file_is_found(data):
    """gzip's own checksum is heeded: with any bit flipped the file is refused, or still says exactly the same."""
    damaged = bytearray(gzip.compress(idx(PICTURES), mtime=0))
    bit = data.draw(st.integers(0, 8 * len(damaged) - 1))
    damaged[bit // 8] ^= 1 << bit % 8
    with TemporaryDirectory() as directory:
        file = Path(directory) / "some.gz"
        file.write_bytes(damaged)
        try:
            np.testing.assert_array_equal(read_idx(file, 3), PICTURES)
        except DataError as error:
            assert str(error).startswith(f"{file}: ")


@pytest.mark.parametrize("part", [0.2, 0.5, 0.95])
def test_a_gzipped_file_whose_download_broke_off_is_refused(tmp_path, part):
    """A gzip stream that ends early is named as a damaged file, not met with a traceback."""
    whole = gzip.compress(idx(np.random.default_rng(0).integers(0, 256, (9, 8, 8), np.uint8)))
    file = tmp_path / "some.gz"
    file.write_bytes(whole[: int(part * len(whole))])
    refused(file)
