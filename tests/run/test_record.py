"""A run.json that the system can't read says nothing about how the run ended."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from microstep.errors import StorageError
from microstep.run.directory import check_no_run
from microstep.run.record import RunRecord, mark_failed
from microstep.run.saved_run import SavedRun
from tests.conftest import irregular


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Let no file be opened."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    (tmp_path / "run.json").write_text(json.dumps({"status": "finished"}))
    return tmp_path


@pytest.mark.parametrize("read", [RunRecord.read, check_no_run, SavedRun.read])
def test_without_descriptors_a_run_does_not_pass_for_unfinished(read, finished: Path) -> None:
    """One line that names the file and the reason."""
    with no_descriptors(), pytest.raises(StorageError) as caught:
        read(finished)
    assert str(caught.value).startswith(f"{finished / 'run.json'}: it can't be read: Too many open files; ")
    assert RunRecord.read(finished).status == "finished"


@pytest.mark.parametrize("kind", ["directory", "pipe", "device", "loop"])
def test_what_is_no_file_is_not_replaced(kind: str, tmp_path: Path) -> None:
    """A run is not marked as failed if its own record can't be read."""
    irregular(tmp_path / "run.json", kind)
    mark_failed(tmp_path, "its process was killed")
    assert not (tmp_path / "run.json").is_file()


def test_a_page_shows_what_can_not_be_read(finished: Path) -> None:
    """The summary of a sweep and its bars go on with a problem in place of the record."""
    with no_descriptors():
        record = RunRecord.read(finished, tolerant=True)
    assert record.status is None
    assert "run.json can't be read: [Errno 24] Too many open files" in str(record.problem)


@pytest.mark.parametrize("content", [None, "", "{", "[]"])
def test_a_missing_or_damaged_file_is_no_error(content: str | None, tmp_path: Path) -> None:
    """Anyone may have written the file."""
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    record = RunRecord.read(tmp_path)
    assert (record.status, record.problem is None) == (None, content is None)
