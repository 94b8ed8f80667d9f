"""A run directory has at most one owner, and never a dead one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from microstep.errors import RunInUse, StorageError
from microstep.run.lock import directory_lock, lock_directory
from tests.faults.zygote import Zygote

OWNER = """
import os, sys, time
from pathlib import Path
from microstep.run.lock import lock_directory
lock = lock_directory(Path(sys.argv[1]))
if not os.fork():
    print(os.getpid(), flush=True)  # it is there, all that happens at a fork has happened
time.sleep(60)
"""
NOBODY = 65534


@contextmanager
def another(directory: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Yield a process that owns a directory, and the pid of a child that it has forked since."""
    command = [sys.executable, "-c", OWNER, str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        child = int(process.stdout.readline())
        try:
            yield process, child
        finally:
            process.kill()
            os.kill(child, signal.SIGKILL)


def test_a_directory_has_one_owner(tmp_path: Path) -> None:
    """The other process is named by pid and host, in one line, with exit code 5."""
    with another(tmp_path) as (process, _), pytest.raises(RunInUse) as caught:
        lock_directory(tmp_path)
    assert caught.value.exit_code == 5
    who = f"pid {process.pid} on {socket.gethostname()}"
    says = f"{tmp_path}: another process is at work in it ({who}); wait for it, stop it, or choose another directory"
    assert str(caught.value) == says


def test_who_was_killed_owns_nothing_though_its_children_live(tmp_path: Path) -> None:
    """After SIGKILL a directory is free at once: loader workers that outlive the process don't hold it."""
    with another(tmp_path) as (process, child):
        process.kill()
        process.wait()
        os.kill(child, 0)  # it lives
        with directory_lock(tmp_path):
            assert f"pid {os.getpid()} on" in (tmp_path / ".lock").read_text()


def test_a_file_of_the_dead_holds_nothing(tmp_path: Path) -> None:
    """A leftover .lock is not a lock, even with the pid of this process: the operating system holds the lock."""
    (tmp_path / ".lock").write_text(f"pid {os.getpid()} on {socket.gethostname()}, and then some " * 20)
    with directory_lock(tmp_path):
        assert (tmp_path / ".lock").read_text() == f"pid {os.getpid()} on {socket.gethostname()}"


@pytest.mark.parametrize(("content", "said"), [(b"", "it has just begun"), (b"\xff\xfe", "it doesn't say which")])
def test_an_owner_that_has_not_said_who_it_is(tmp_path: Path, content: bytes, said: str) -> None:
    """Between locking and writing the file there is a moment: the refusal is the same."""
    with another(tmp_path):
        (tmp_path / ".lock").write_bytes(content)
        with pytest.raises(RunInUse, match=said):
            lock_directory(tmp_path)


def test_within_a_process_the_last_release_counts(tmp_path: Path) -> None:
    """The command line locks a directory and the trainer locks it again: neither releases the other's lock."""
    with directory_lock(tmp_path):
        with directory_lock(tmp_path):
            pass
        assert is_taken(tmp_path)
    assert not is_taken(tmp_path)


def is_taken(directory: Path) -> bool:
    """Return whether another process finds it locked."""
    code = "import sys, pathlib, microstep.run.lock as lock; lock.lock_directory(pathlib.Path(sys.argv[1]))"
    return subprocess.run([sys.executable, "-c", code, str(directory)], capture_output=True).returncode != 0


def test_where_the_directory_can_not_be_written_it_is_a_failure_of_storage(tmp_path: Path) -> None:
    """Exit code 4, with the system's reason."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"check that it can be written") as caught:
        lock_directory(tmp_path / "file")
    assert caught.value.exit_code == 4


@contextmanager
def unprivileged() -> Iterator[None]:
    """Drop root privileges for a while: permissions do not apply to root."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_read_only_directory_is_a_failure_of_storage() -> None:
    """Exit code 4; nothing is written."""
    with tempfile.TemporaryDirectory() as place:  # pytest's own may be entered by its owner only
        Path(place).chmod(0o555)
        with unprivileged(), pytest.raises(StorageError, match=r"Permission denied; check that it can be written"):
            lock_directory(Path(place))
        assert not list(Path(place).iterdir())


def test_two_resumes_of_one_run_are_not_both_let_in(zygote: Zygote, tmp_path: Path) -> None:
    """While a run is training, `resume=` of it ends with exit code 5 and changes nothing but the text of .lock."""
    run = tmp_path / "run"
    words = ("model=mlp", "epochs=1", "threads=1", "progress=false", "hydra.run.dir=run")
    assert zygote.run("train.py", *words, cwd=tmp_path) == 0
    (run / "run.json").write_text('{"status": "running"}')
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file() and file.name != ".lock"}
    with another(run) as (process, _):
        assert zygote.run("train.py", "resume=run", cwd=tmp_path) == 5
    assert (tmp_path / "output.txt").read_text().splitlines()[-1].startswith("error: run: another process is at work")
    assert f"(pid {process.pid} on " in (tmp_path / "output.txt").read_text()
    after = {file: file.read_bytes() for file in run.rglob("*") if file.is_file() and file.name != ".lock"}
    assert after == before
