"""Of two processes in one directory one works, and the other reports its owner."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from pathlib import Path

from tests.faults.runs import manifest_of
from tests.faults.zygote import Zygote

WORDS = ("model=mlp", "threads=1", "progress=false")
STREAMED = ("dataset.resident=false", "num_workers=2", "augment=crop_flip")


def said(home: Path) -> str:
    return (home / "output.txt").read_text()


def begun(zygote: Zygote, home: Path, *words: str) -> int:
    """Start a long run, and return its pid once it has saved."""
    pid = zygote.start("train.py", *WORDS, *words, "epochs=2000", "hydra.run.dir=run", cwd=home)
    until = time.monotonic() + 60
    while not (home / "run" / "checkpoints" / "manifest.json").exists():
        assert time.monotonic() < until, said(home)
        time.sleep(0.02)
    return pid


def end(zygote: Zygote, pid: int, number: int = signal.SIGTERM) -> None:
    os.kill(pid, number)
    zygote.wait(pid)


def test_a_second_process_is_refused_and_told_who_has_it(zygote: Zygote, tmp_path: Path) -> None:
    """Resuming or starting, it is exit code 5 with the owner's pid and host, and nothing is changed."""
    pid = begun(zygote, tmp_path)
    (tmp_path / "other").mkdir()
    for words in (["resume=../run"], ["resume=auto", *WORDS, "epochs=2000", "hydra.run.dir=../run"]):
        assert zygote.run("train.py", *words, cwd=tmp_path / "other") == 5, said(tmp_path / "other")
        line = said(tmp_path / "other").splitlines()[-1]
        assert re.match(rf"error: .*run: .*\(pid {pid} on {socket.gethostname()}\); ", line), line
    assert zygote.run("train.py", *WORDS, "hydra.run.dir=../run", cwd=tmp_path / "other") == 2  # it would start afresh
    end(zygote, pid)
    assert "error" not in said(tmp_path).replace("error: stopped by SIGTERM", "")


def test_a_killed_owner_leaves_no_lock_behind(zygote: Zygote, tmp_path: Path) -> None:
    """Its loader processes live on for a moment and do not hold the lock: the run can be resumed at once."""
    end(zygote, begun(zygote, tmp_path, *STREAMED), signal.SIGKILL)
    pid = zygote.start("train.py", "resume=run", "num_workers=0", cwd=tmp_path)
    until = time.monotonic() + 60
    while "resumed after" not in said(tmp_path):
        assert time.monotonic() < until, said(tmp_path)
        time.sleep(0.02)
    end(zygote, pid)


def test_what_a_dead_writer_left_is_removed(zygote: Zygote, tmp_path: Path) -> None:
    """Temporary files of a process that was killed are gone after a resume, and so are files that nothing names."""
    end(zygote, begun(zygote, tmp_path), signal.SIGKILL)
    checkpoints = tmp_path / "run" / "checkpoints"
    for name in (".epoch-0009.pt.123.tmp", ".manifest.json.123.tmp", "epoch-9999.pt"):
        (checkpoints / name).write_bytes(b"half of it")
    (tmp_path / "run" / ".run.json.99.tmp").touch()
    pid = zygote.start("train.py", "resume=run", cwd=tmp_path)
    before = manifest_of(tmp_path / "run")
    until = time.monotonic() + 60
    while manifest_of(tmp_path / "run") == before:
        assert time.monotonic() < until, said(tmp_path)
        time.sleep(0.02)
    end(zygote, pid)
    assert not list((tmp_path / "run").rglob(".*.tmp"))
    assert {file.name for file in checkpoints.glob("*.pt")} == {
        e["file"] for e in manifest_of(tmp_path / "run").values()
    }


def test_four_starts_in_one_second_get_four_directories(zygote: Zygote, tmp_path: Path) -> None:
    """Each run has its own directory, even within one second: `-2`, `-3` and `-4` are added."""
    words = (*WORDS, "epochs=1", "dataset.val_samples=100")
    pids = [zygote.start("train.py", *words, cwd=tmp_path) for _ in range(4)]
    assert [zygote.wait(pid) for pid in pids] == [0, 0, 0, 0], said(tmp_path)
    runs = [file.parent for file in tmp_path.rglob("run.json")]
    assert len(runs) == 4
    assert all(len((run / "metrics.csv").read_text().splitlines()) == 2 for run in runs)
