"""Files are identified by their content, and a file that has not changed is not read again."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from microstep.components.dataset import files as module
from microstep.errors import DataError
from microstep.utils.json_files import cache_directory, load_cached, store_cached
from tests.components.dataset.folders import filled, opened, painted

COUNTS = {"ant": 10, "bee": 10}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "microstep"


@pytest.fixture
def root(tmp_path) -> Path:
    return filled(tmp_path / "data", COUNTS)


@pytest.fixture
def hashed(monkeypatch) -> list[str]:
    """The files that are read to be hashed."""
    read: list[str] = []
    real = module.hash_file
    monkeypatch.setattr(module, "hash_file", lambda file: read.append(file.name) or real(file))
    return read


def streaming(root: Path, **keys):
    return opened(root, resident=False, **keys)


def test_the_fingerprint_knows_the_content(root):
    """One byte of one file, in any split, at the same size: another data set."""
    before, seen = opened(root).fingerprint, set()
    for file in sorted(root.rglob("*.png"))[::7]:
        content = bytearray(file.read_bytes())
        content[-30] ^= 1
        file.write_bytes(content)
        seen.add(opened(root).fingerprint)
    assert len(seen | {before}) == 4


def test_a_change_that_keeps_size_and_time_is_seen(root, hashed):
    """Tools that copy a file with its times, as `cp -p` and rsync do, can't pass off another one."""
    before = opened(root).fingerprint
    file = root / "ant" / "003.png"
    status, content = file.stat(), bytearray(file.read_bytes())
    content[-30] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert opened(root).fingerprint != before
    assert len(hashed) == 21


def test_the_fingerprint_knows_names_classes_and_sizes(root):
    """A file moved to another class, a class renamed, another size of images, gray: each is another data set."""
    seen = [opened(root).fingerprint, opened(root, size=9).fingerprint, opened(root, grey=True).fingerprint]
    (root / "ant" / "003.png").rename(root / "bee" / "103.png")
    seen.append(opened(root).fingerprint)
    (root / "bee").rename(root / "bug")
    seen.append(opened(root).fingerprint)
    assert len({*seen}) == 5


def test_the_fingerprint_does_not_know_place_or_time(root, tmp_path):
    """A copy elsewhere, with new times, and one without what was remembered, are the same data."""
    before = opened(root).fingerprint
    shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copyfile)
    assert opened(tmp_path / "copy").fingerprint == before
    for file in root.rglob("*.png"):
        os.utime(file, (1, 1))
    assert opened(root).fingerprint == before


def test_an_unchanged_file_is_not_hashed_again(root, hashed):
    """The second time no file is read; a file that is touched or new is read."""
    first = opened(root).fingerprint
    assert len(hashed) == 20
    assert opened(root).fingerprint == first
    assert len(hashed) == 20
    os.utime(root / "ant" / "003.png")
    assert opened(root).fingerprint == first
    assert hashed[20:] == ["003.png"]
    painted(root / "bee" / "new.png", 9)
    assert opened(root).fingerprint != first
    assert hashed[21:] == ["new.png"]


def test_names_that_are_no_text_are_remembered_too(root, hashed):
    """One file whose name is no UTF-8 doesn't have everything hashed each time."""
    painted(root / os.fsdecode(b"ant/\xff\xfe.png"), 9)
    first = opened(root).fingerprint
    assert opened(root).fingerprint == first
    assert len(hashed) == 21


BROKEN = [b"", b"{", b"[1, 2]", b'"text"', b"\xff\xfe\0", b'{"ant/000.png": 5}', b'{"ant/000.png": [1]}', b"[" * 10**5]


@pytest.mark.parametrize("content", BROKEN)
def test_a_broken_cache_of_digests_is_no_cache(root, home, hashed, content):
    """Empty, cut short, of another shape: files are read again, and it is whole afterwards."""
    first = opened(root).fingerprint
    (kept,) = (home / "files").iterdir()
    kept.write_bytes(content)
    assert opened(root).fingerprint == first
    count = len(hashed)
    assert count > 20
    assert opened(root).fingerprint == first
    assert len(hashed) == count


@pytest.mark.parametrize("entry", [[], None, "text", {}, [1, 2, 3, None], [1, 2, 3, 4, 5]])
def test_a_broken_entry_is_no_entry(root, home, hashed, entry):
    """Even one that bears the file's name among sound ones: that file alone is read again."""
    first = opened(root).fingerprint
    (kept,) = (home / "files").iterdir()
    kept.write_text(json.dumps(json.loads(kept.read_text()) | {"ant/000.png": entry}))
    assert opened(root).fingerprint == first
    assert hashed[20:] == ["000.png"]


def test_a_file_that_is_gone_is_named(root):
    """Between listing and reading a file can go: it is named, not met with a traceback."""
    dataset = opened(root)
    (root / "ant" / "003.png").unlink()
    with pytest.raises(DataError, match=f"^{root}/ant/003.png: No such file or directory; repair or remove it$"):
        assert dataset.fingerprint


def test_a_cache_that_can_not_be_written_costs_time_only(root, tmp_path, monkeypatch):
    """A home that is a file, or read-only: everything works, and nothing is said."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert streaming(root).fingerprint == opened(root).fingerprint
    assert streaming(root).normalization.origin == "exact, of 16 training images"
    assert store_cached("a.json", {"a": 1}) is None


def test_what_is_remembered_is_recalled(home):
    """Values come back as they were, numbers bit by bit, and stay below the cache directory."""
    value = {"a": [0.1 + 0.2, 1e-300, float("inf")], "名": "\udcff"}
    assert store_cached("some/value.json", value) == home / "some" / "value.json"
    assert load_cached("some/value.json") == value
    assert cache_directory() == home
    assert load_cached("other.json") == {}


def test_statistics_of_files_are_taken_once(root, decoded):
    """The second time nothing is decoded, the numbers are the same to the last bit, and the summary says so."""
    first = streaming(root).normalization
    assert (first.origin, len(decoded)) == ("exact, of 16 training images", 16)
    second = streaming(root).normalization
    assert (second.origin, len(decoded)) == ("exact, of 16 training images, computed before", 16)
    assert (first.mean, first.std) == (second.mean, second.std)
    assert "computed before" in streaming(root).summary
    resident = opened(root, resident=True).normalization
    assert (resident.mean, resident.std) == (first.mean, first.std)


def test_statistics_of_other_content_are_taken_anew(root, decoded):
    """One image changed, another split, another size: what was remembered of the old data is not taken for theirs."""
    seen = {streaming(root).normalization.mean}
    Image.new("RGB", (8, 8), "white").save(root / "ant" / "003.png")
    for keys in ({}, {"split_seed": 1}, {"size": 9}, {"val_fraction": 0.2}):
        found = streaming(root, **keys).normalization
        assert found.origin.startswith("exact, of ")
        seen.add(found.mean)
    assert len(seen) == 5


@pytest.mark.parametrize("keys", [{"fit": "pad"}, {"fit": "squash"}, {"grey": True}])
def test_statistics_of_other_pixels_are_taken_anew(root, keys):
    """Of the same files, statistics are remembered for the one way to decode them that they were computed for."""
    assert "computed before" not in streaming(root).normalization.origin
    assert "computed before" not in streaming(root, **keys).normalization.origin
    assert "computed before" in streaming(root, **keys).normalization.origin


def test_statistics_of_an_older_decoder_are_not_taken(root, home):
    """What was remembered before a change of the decoder is not used, although the files are the same."""
    found = streaming(root)
    before = found.normalization
    (kept,) = (home / "statistics").iterdir()
    kept.rename(kept.with_name(f"{found.fingerprint}.json"))
    assert streaming(root).normalization == before


@pytest.mark.parametrize("content", BROKEN[:5])
def test_a_broken_cache_of_statistics_is_no_cache(root, home, content):
    """They are computed again, and kept."""
    first = streaming(root).normalization
    (kept,) = (home / "statistics").iterdir()
    kept.write_bytes(content)
    second = streaming(root).normalization
    assert (second.origin, second.mean, second.std) == (first.origin, first.mean, first.std)
    assert "computed before" in streaming(root).normalization.origin


def test_given_numbers_are_taken_without_reading_everything(root, decoded):
    """If mean and standard deviation are given, a few images are read, and nothing is cached."""
    assert streaming(root, mean=[0.2] * 3, std=[0.15] * 3).normalization.origin == "given"
    assert len(decoded) <= 512
    assert not (cache_directory() / "statistics").exists()
