"""A checkpoint with code in it is refused and not run; one that declares more than it holds is not unpacked."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch

from microstep.errors import CheckpointRefused
from microstep.run.checkpoints.archive import serialize_state
from microstep.run.checkpoints.checkpoints import Checkpoints
from tests.faults.runs import manifest_of, state_of, unfinished
from tests.faults.zygote import Zygote

Form = Callable[[object], bytes]


class Code:
    """Makes a marker file when it is unpickled by a loader that runs code."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def raw(content: object) -> bytes:
    return pickle.dumps(content)


def legacy(content: object) -> bytes:
    """Return the format of torch before version 1.6."""
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def zipped(content: object) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


FORMS: tuple[Form, ...] = (raw, legacy, zipped)
WRAPS = (lambda c: c, lambda c: {"model": c}, lambda c: {"model": {}, "progress": {"epoch": [c]}})


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, to be tampered with."""
    return unfinished(trained, tmp_path / "run")


def plant(run: Path, content: bytes) -> None:
    """Replace the bytes of every checkpoint, with a matching manifest."""
    manifest = manifest_of(run)
    for entry in manifest.values():
        (run / "checkpoints" / entry["file"]).write_bytes(content)
        entry |= {"sha256": sha256(content).hexdigest(), "bytes": len(content)}
    (run / "checkpoints" / "manifest.json").write_text(json.dumps(manifest))


def refusal(run: Path) -> str:
    with pytest.raises(CheckpointRefused) as caught:
        Checkpoints(run / "checkpoints").load("best")
    assert caught.value.exit_code == 6
    return str(caught.value)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("wrap", WRAPS)
def test_code_is_refused_and_not_run(run: Path, tmp_path: Path, form: Form, wrap: Callable[[object], object]) -> None:
    """Even if size and checksum in the manifest match, the code in it never runs."""
    marker = tmp_path / "marker"
    plant(run, form(wrap(Code(marker))))
    assert "torch can't read it" in refusal(run)
    assert not marker.exists()


def test_such_code_does_run_where_it_is_let(tmp_path: Path) -> None:
    """The tests here can fail: loaded the usual way, each form makes its marker."""
    for number, form in enumerate(FORMS):
        marker = tmp_path / str(number)
        with suppress(RuntimeError):  # of a raw pickle torch finds out too late that it is none of its own
            torch.load(io.BytesIO(form({"model": Code(marker)})), weights_only=False)
        assert marker.exists()


@pytest.mark.parametrize("form", FORMS)
def test_both_programs_refuse_it_with_exit_code_6(zygote: Zygote, run: Path, tmp_path: Path, form: Form) -> None:
    """evaluate.py and a resume: the last line says why, and no marker appears."""
    marker = tmp_path / "marker"
    plant(run, form(state_of(run, "last") | {"progress": Code(marker)}))
    for program, word in (("evaluate.py", f"run={run}"), ("train.py", f"resume={run}")):
        assert zygote.run(program, word, cwd=tmp_path) == 6
        assert (tmp_path / "output.txt").read_text().splitlines()[-1].startswith("error: ")
        assert not marker.exists()


def rezipped(content: bytes, pickled: bytes | None = None, **options: Any) -> bytes:
    """Return an archive of torch with another pickle in it, or compressed."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(stream, "w", **options) as new:
        for member in old.infolist():
            keep = pickled is None or not member.filename.endswith("data.pkl")
            new.writestr(member.filename, old.read(member) if keep else pickled)
    return stream.getvalue()


BYTEARRAY = b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R."  # two gigabytes, in thirty bytes


def test_a_pickle_that_asks_for_memory_is_refused(run: Path) -> None:
    """`bytearray(2**31 - 1)` is on torch's own list of allowed names."""
    plant(run, rezipped(zipped({"model": torch.ones(2)}), BYTEARRAY))
    assert "builtins bytearray" in refusal(run)


def test_a_packed_archive_is_refused(run: Path) -> None:
    """Zeros compress a thousandfold: torch writes no compressed member, so none is unpacked."""
    bomb = rezipped(zipped({"model": torch.zeros(10**6)}), compression=zipfile.ZIP_DEFLATED)
    assert len(bomb) < 10**5
    plant(run, bomb)
    assert "packed, or declares more than it holds" in refusal(run)


def test_a_tensor_that_declares_more_than_there_is_is_refused(run: Path) -> None:
    """Two numbers in the pickle say 255, but the record holds 4."""
    content = zipped({"model": torch.arange(4.0)})
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        pickled = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    swollen = pickled.replace(b"K\x04t", b"K\xfft").replace(b"K\x04\x85", b"K\xff\x85")
    assert swollen != pickled
    plant(run, rezipped(content, swollen))
    assert "torch can't read it" in refusal(run)


def test_what_a_run_writes_is_let_in(run: Path) -> None:
    """Snapshots of every kind load: all dtypes, sizes, devices, ordered dictionaries and counters."""
    dtypes = (torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool, torch.complex64)
    state = {str(dtype): torch.ones(2).to(dtype) for dtype in dtypes}
    plant(
        run, serialize_state({"model": state, "plain": [1, 2.5, True, None, "x", (3,), torch.Size([2]), torch.float16]})
    )
    assert Checkpoints(run / "checkpoints").load("best")["plain"][1] == 2.5
