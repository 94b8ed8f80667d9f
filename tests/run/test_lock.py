"""A run directory has at most one owner, and never a dead one."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Timer

import pytest

from microstep.errors import RunInUse, StorageError
from microstep.run.directory import clear_run_directory
from microstep.run.lock import directory_lock, is_locked, lock_directory, submit_locked, warn_of_weak_lock
from tests.conftest import files_limited
from tests.faults.zygote import Zygote

OWNER = """
import errno, fcntl, os, sys, time
from pathlib import Path
def flock(*_):
    raise OSError(getattr(errno, sys.argv[2]), "planted")
if len(sys.argv) > 2:
    fcntl.flock = flock
from microstep.run.lock import lock_directory
lock = lock_directory(Path(sys.argv[1]))
if not os.fork():
    print(os.getpid(), flush=True)  # it is there, all that happens at a fork has happened
time.sleep(60)
"""
NOBODY = 65534


@contextmanager
def another(directory: Path, *no_flock: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Yield a process that owns a directory, and the pid of a child that it has forked since.

    `no_flock` is the name of the error that flock fails with in that process.
    """
    command = [sys.executable, "-c", OWNER, str(directory), *no_flock]
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
            assert f"pid {os.getpid()} on" in (tmp_path / ".lock.holder").read_text()


def test_a_file_of_the_dead_holds_nothing(tmp_path: Path) -> None:
    """Leftover files are no lock, even with the pid of this process: the operating system holds the lock."""
    for name in (".lock", ".lock.holder"):
        (tmp_path / name).write_text(f"pid {os.getpid()} on {socket.gethostname()}, and then some " * 20)
    with directory_lock(tmp_path):
        assert (tmp_path / ".lock.holder").read_text() == f"pid {os.getpid()} on {socket.gethostname()}"


@pytest.mark.parametrize(("content", "said"), [(b"", "it has just begun"), (b"\xff\xfe", "it doesn't say which")])
def test_an_owner_that_has_not_said_who_it_is(tmp_path: Path, content: bytes, said: str) -> None:
    """Between locking and writing the file there is a moment: the refusal is the same."""
    with another(tmp_path):
        (tmp_path / ".lock.holder").write_bytes(content)
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
    """While a run is training, `resume=` of it ends with exit code 5 and changes nothing."""
    run = tmp_path / "run"
    words = ("model=mlp", "epochs=1", "threads=1", "progress=false", "hydra.run.dir=run")
    assert zygote.run("train.py", *words, cwd=tmp_path) == 0
    (run / "run.json").write_text('{"status": "running"}')
    with another(run) as (process, _):
        before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
        assert zygote.run("train.py", "resume=run", cwd=tmp_path) == 5
    assert (tmp_path / "output.txt").read_text().splitlines()[-1].startswith("error: run: another process is at work")
    assert f"(pid {process.pid} on " in (tmp_path / "output.txt").read_text()
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


NO_FLOCK = ("ENOSYS", "ENOLCK", "EOPNOTSUPP")


@pytest.fixture(params=NO_FLOCK)
def no_flock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let flock fail in this process, as it does on a file system without it. Return the error's name."""

    def fail(*_: object) -> None:
        raise OSError(getattr(errno, request.param), "planted")

    monkeypatch.setattr(fcntl, "flock", fail)
    warn_of_weak_lock.cache_clear()
    return request.param


def test_without_flock_a_directory_has_one_owner_too(tmp_path: Path, no_flock: str, capsys) -> None:
    """The refusal names the process and the file to remove; a warning says once that the lock is weaker."""
    with another(tmp_path, no_flock) as (process, _):
        assert is_locked(tmp_path)
        with pytest.raises(RunInUse, match=rf"\(pid {process.pid} on {socket.gethostname()}\)") as caught:
            lock_directory(tmp_path)
    marker = tmp_path / ".lock.marker"
    assert str(caught.value).endswith(
        f"wait for it, stop it, or choose another directory, or remove {marker} if it is dead"
    )
    assert capsys.readouterr().err.count("warning: the file system has no flock") == 1


def test_without_flock_a_killed_owner_owns_nothing(tmp_path: Path, no_flock: str) -> None:
    """Its marker is replaced, and removed at the last release; the files of the directory can be cleared meanwhile."""
    with another(tmp_path, no_flock) as (process, child):
        process.kill()
        process.wait()
        os.kill(child, 0)  # it lives
        with directory_lock(tmp_path):
            with directory_lock(tmp_path):
                clear_run_directory(tmp_path)
            assert f"pid {os.getpid()} on" in (tmp_path / ".lock.holder").read_text()
            assert (tmp_path / ".lock.marker").exists()
    assert not (tmp_path / ".lock.marker").exists()
    assert not is_locked(tmp_path)


def test_without_flock_the_file_that_is_named_can_be_removed(tmp_path: Path, no_flock: str) -> None:
    """The marker of a process on another host stays: whether that process lives can't be known here."""
    (tmp_path / ".lock.marker").write_text("1\nelsewhere\n")
    with pytest.raises(RunInUse, match=r"or remove (.*) if it is dead$") as caught:
        lock_directory(tmp_path)
    Path(str(caught.value).split()[-5]).unlink()
    with directory_lock(tmp_path):
        pass


def test_a_lock_whose_holder_can_not_be_named_is_released(tmp_path: Path) -> None:
    """On a full disk the directory is not left locked."""
    with files_limited(5), pytest.raises(StorageError):
        lock_directory(tmp_path)
    assert not is_taken(tmp_path)


def test_a_lock_outlives_a_thread_that_writes(tmp_path: Path) -> None:
    """Until it has written, others are refused, although its owner has gone; a new owner in this process waits."""
    go_on, done = Event(), Event()

    def write() -> None:
        go_on.wait(10)
        done.set()

    with directory_lock(tmp_path):
        submit_locked(ThreadPoolExecutor(), write, tmp_path)
    assert is_taken(tmp_path)
    Timer(0.2, go_on.set).start()
    with directory_lock(tmp_path):
        assert done.is_set()
    assert not is_taken(tmp_path)
