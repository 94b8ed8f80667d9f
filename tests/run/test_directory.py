"""A run directory holds one run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from microstep.errors import ConfigError
from microstep.run.directory import check_no_run, has_checkpoint, lock_new_run, make_if_missing
from microstep.run.record import RunRecord
from tests.conftest import ROOT


def test_a_directory_survives_a_power_cut(tmp_path, monkeypatch):
    """The name of each directory that is made is flushed to the disk, in its parent."""
    flushed, fsync = [], os.fsync

    def observed(descriptor: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", observed)
    make_if_missing(tmp_path / "a" / "b" / "run")
    assert set(flushed) == {tmp_path, tmp_path / "a", tmp_path / "a" / "b"}
    make_if_missing(tmp_path / "a" / "b")  # as after Hydra, which makes a job's directory itself
    assert flushed[3:] == [tmp_path / "a"]


def test_of_two_that_start_at_once_in_one_directory_one_runs(tmp_path) -> None:
    """The other is refused in one line with exit code 2 or 5, and takes nothing of the first away."""
    words = ("epochs=1", "model=mlp", "threads=1", "hydra.run.dir=run")
    command = [sys.executable, str(ROOT / "train.py"), *words]
    both = [
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=200)[1] for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes[0] == 0 and codes[1] in (2, 5), said
    reason = {2: "it holds a run already", 5: "another process is at work in it (pid "}[codes[1]]
    assert reason in "".join(said)
    assert len("".join(said).splitlines()) == 1
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 2


def test_a_directory_is_occupied_once(tmp_path) -> None:
    """Once a run has a checkpoint, or is finished, its directory is no other's; and the lock on it is given back."""
    for name, content in (("checkpoints/manifest.json", "{}"), ("run.json", json.dumps({"status": "finished"}))):
        run = tmp_path / name.replace("/", "-")
        (run / name).parent.mkdir(parents=True)
        (run / name).write_text(content)
        with pytest.raises(ConfigError, match=r"it holds a run already; resume=.* resumes it"):
            lock_new_run(run)
            assert not still_locked(run)


def still_locked(run) -> bool:
    """Say whether another process finds a directory taken."""
    code = (
        f"from pathlib import Path; from microstep.run.lock import lock_directory; lock_directory(Path({str(run)!r}))"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True).returncode != 0


@pytest.mark.parametrize("status", ["running", "failed", "interrupted", None])
def test_what_died_before_its_first_checkpoint_may_be_started_afresh(tmp_path, status) -> None:
    """There is nothing to lose in it: its directory is taken."""
    if status:
        (tmp_path / "run.json").write_text(json.dumps({"status": status}))
    assert (RunRecord.read(tmp_path).status, has_checkpoint(tmp_path)) == (status, False)
    check_no_run(tmp_path)
    lock = lock_new_run(tmp_path)
    assert still_locked(tmp_path)
    lock.release()
    assert not still_locked(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", "{", "[" * 100_000, '{"status"', "\ud800"])
def test_a_damaged_run_json_has_no_status(tmp_path, content) -> None:
    """A run directory may be anybody's: for any content of its run.json, the status is unknown."""
    (tmp_path / "run.json").write_text(content, errors="surrogatepass")
    assert RunRecord.read(tmp_path).status is None
