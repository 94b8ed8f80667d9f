"""Files are whole or not there, also when the disk is full."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from microstep.errors import StorageError
from microstep.utils.files import is_abandoned, storage_errors, write_atomic, write_directory
from microstep.utils.json_files import read_json, read_limited, replace_nonfinite, write_json
from microstep.utils.text import display_path
from tests.conftest import irregular

ON_A_FULL_DISK = """
import resource, sys
from pathlib import Path
from microstep.errors import StorageError
from microstep.utils.files import write_atomic
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomic(Path(sys.argv[1]), b"n" * 5000)
except StorageError as error:
    print(error)
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize("durable", [True, False])
def test_content_is_replaced_and_nothing_else_is_left(tmp_path: Path, durable: bool) -> None:
    """After a write the file holds the new bytes, and it is alone in its directory."""
    file = tmp_path / "last.pt"
    write_atomic(file, b"old", durable)
    write_atomic(file, b"new\x00\xff", durable)
    assert file.read_bytes() == b"new\x00\xff"
    assert list(tmp_path.iterdir()) == [file]


def test_a_reader_sees_the_old_content_or_the_new(tmp_path: Path) -> None:
    """However often a file is written, whoever reads it meanwhile never gets a part, nor finds it gone."""
    file, wholes = tmp_path / "run.json", [letter * 300_000 for letter in (b"a", b"b")]
    write_atomic(file, wholes[0], durable=False)
    writer = Thread(target=lambda: [write_atomic(file, wholes[n % 2], durable=False) for n in range(300)])
    writer.start()
    seen = set()
    while writer.is_alive():
        seen.add(file.read_bytes())
    writer.join()
    assert seen <= set(wholes)


def test_a_full_disk_leaves_the_old_file_whole(tmp_path: Path) -> None:
    """If the new content doesn't fit, the old one stays, no temporary is left, and the error names the file."""
    file = tmp_path / "epoch-0001.pt"
    file.write_bytes(b"o" * 500)
    done = subprocess.run([sys.executable, "-c", ON_A_FULL_DISK, str(file)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (4, "")
    assert done.stdout == f"{file}: File too large: 5,000 bytes are needed; raise the limit of file sizes (ulimit -f)\n"
    assert file.read_bytes() == b"o" * 500
    assert list(tmp_path.iterdir()) == [file]


def test_an_interrupted_write_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal in the middle of a write changes nothing."""
    file = tmp_path / "manifest.json"
    file.write_bytes(b"old")

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(file, b"new")
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_directory_that_is_not_there_is_a_storage_error(tmp_path: Path) -> None:
    """A failed write is an error that names the file, with exit code 4 and a remedy."""
    file = tmp_path / "gone" / "run.json"
    with pytest.raises(StorageError, match=r"gone/run\.json: No such file or directory; check that") as caught:
        write_atomic(file, b"")
    assert caught.value.exit_code == 4


def test_only_storage_is_turned_into_a_storage_error(tmp_path: Path) -> None:
    """A programming error inside stays what it is."""
    with pytest.raises(ZeroDivisionError), storage_errors(tmp_path):
        _ = 1 / 0


def test_json_never_holds_what_json_does_not_have(tmp_path: Path) -> None:
    """A NaN metric is null in run.json, at any depth: every parser can read it."""
    content = {"metrics": {"val": {"loss": math.nan, "accuracy": 0.5}}, "lr": [math.inf, (1, -math.inf)], "名": "数"}
    write_json(tmp_path / "run.json", content)
    text = (tmp_path / "run.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=pytest.fail) == {
        "metrics": {"val": {"loss": None, "accuracy": 0.5}},
        "lr": [None, [1, None]],
        "名": "数",
    }
    assert "名" in text


@pytest.mark.parametrize("value", [0.0, -1.5, 3, True, None, "nan", np.float64(2.5)])
def test_what_is_finite_stays_as_it_is(value: object) -> None:
    """Numbers, words, truth values and null pass unchanged, bit for bit."""
    assert replace_nonfinite(value) is value


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float64("nan")])
def test_what_is_not_finite_becomes_none(value: float) -> None:
    """NaN and both infinities do, numpy's double too."""
    assert replace_nonfinite(value) is None


def test_a_path_is_shown_as_one_would_type_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below the working directory it is relative, elsewhere absolute: never a chain of dots."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert display_path(tmp_path / "here" / "outputs" / "run") == display_path(Path("outputs/run")) == "outputs/run"
    assert display_path(tmp_path / "there") == str(tmp_path.resolve() / "there")


def test_a_small_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    """To the last byte that is allowed; one more is refused, and a file that is larger by far isn't read whole."""
    file = tmp_path / "f"
    file.write_bytes(b"x" * 10)
    assert read_limited(file, 10) == b"x" * 10
    with pytest.raises(ValueError, match="far too large"):
        read_limited(file, 9)
    os.truncate(file, 2**40)  # a terabyte of nothing
    with pytest.raises(ValueError, match="far too large"):
        read_limited(file)


@pytest.mark.parametrize("kind", ["nothing", "directory", "pipe", "device"])
def test_only_a_regular_file_is_read(tmp_path: Path, kind: str) -> None:
    """A pipe would be waited for for ever, and a device has no end."""
    file = tmp_path / "f"
    irregular(file, kind)
    with pytest.raises(OSError, match="No such file" if kind == "nothing" else "no regular file"):
        read_json(file)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '"x"', "\0", "[" * 500_000, '{"a":' * 100_000, '{"a": ' + "9" * 5000 + "}"]
)
def test_what_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    """Damage, other values, brackets without end: a ValueError, whatever the parser makes of it."""
    (tmp_path / "f").write_text(text)
    with pytest.raises(ValueError, match=r"."):
        read_json(tmp_path / "f")
    (tmp_path / "f").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(ValueError, match="utf-8"):
        read_json(tmp_path / "f")
    write_json(tmp_path / "f", {"a": {"é": [1, None]}})
    assert read_json(tmp_path / "f") == {"a": {"é": [1, None]}}


def test_a_draft_has_the_name_of_what_it_becomes(tmp_path: Path) -> None:
    """Titles of a report's pictures and its warnings name the split, and nothing is left beside it."""
    with write_directory(tmp_path / "reports" / "test") as draft:
        assert draft.name == "test"
        (draft / "title.txt").write_text(draft.name)
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["reports", "test", "title.txt"]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux says which processes are zombies")
def test_what_a_zombie_has_left_is_abandoned(tmp_path: Path) -> None:
    """A process that has ended writes no more, even if its parent has not asked for its exit status."""
    with subprocess.Popen(["sleep", "60"]) as process:
        temporary = tmp_path / f".x.{socket.gethostname()}.{process.pid}.tmp"
        assert not is_abandoned(temporary)
        os.kill(process.pid, 9)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays a zombie
        assert is_abandoned(temporary)
